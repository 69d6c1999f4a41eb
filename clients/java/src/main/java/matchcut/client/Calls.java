package matchcut.client;

import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.ClientInterceptors;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.stub.ClientCalls;
import io.grpc.stub.MetadataUtils;
import java.time.Duration;
import java.util.Optional;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.TimeUnit;
import java.util.function.Function;
import java.util.function.Supplier;
import matchcut.client.Requests.Upload;

/** How calls are made: with the client's deadline, token and retries. */
final class Calls {
    static final int LARGEST = 64 * 1024 * 1024; // bytes a message: an item with vectors, a frame of 4K

    private static final Metadata.Key<String> AUTHORIZATION =
            Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER);

    private final ManagedChannel owner;
    private final Channel channel;
    private final Retry retry;

    /** {@code token} may be null. */
    Calls(ManagedChannel owner, String token, Retry retry) {
        this.owner = owner;
        this.retry = retry;
        Metadata headers = new Metadata();
        if (token != null) {
            headers.put(AUTHORIZATION, "Bearer " + token);
        }
        channel = ClientInterceptors.intercept(owner, MetadataUtils.newAttachHeadersInterceptor(headers));
    }

    /** Cancels what is under way and closes the connection. */
    void close() {
        owner.shutdownNow();
    }

    /** One message out, one back; making the request may read a file. */
    <Q, R> R unary(
            MethodDescriptor<Q, R> method, Supplier<Q> request, Retry.Repeat repeat, Optional<Duration> timeout) {
        return answer(repeat, timeout, attempts -> {
            Q message = request.get();
            return ClientCalls.blockingUnaryCall(channel, method, options(attempts.remaining()), message);
        });
    }

    /** A header and media out, then {@code end}; the last of what comes back. */
    <Q, R> R upload(
            MethodDescriptor<Q, R> method, Upload<Q> upload, Optional<Q> end, Optional<Duration> timeout) {
        Meter meter = upload.media().meter();
        Retry.Repeat repeat = upload.media().replayable() ? Retry.Repeat.READ : Retry.Repeat.NEVER;
        return answer(repeat, timeout, attempts -> {
            meter.restart();
            Q header = upload.header().get();
            Exchange<Q, R> exchange = open(method, attempts.remaining());
            try {
                exchange.send(header);
                exchange.pump(upload, meter, end);
                R last = null;
                for (R reply = exchange.read(); reply != null; reply = exchange.read()) {
                    last = reply;
                }
                if (last == null) {
                    throw Errors.own(Status.Code.INTERNAL, "The server ended the call without a reply.");
                }
                return last;
            } finally {
                exchange.cancel();
            }
        });
    }

    /** Starts a call whose replies are read one by one, and its media if there is any. */
    <Q, R> Exchange<Q, R> live(MethodDescriptor<Q, R> method, Upload<Q> upload, Optional<Duration> timeout) {
        Exchange<Q, R> exchange = open(method, timeout);
        exchange.send(upload.header().get());
        if (upload.media() != null) {
            exchange.pump(upload, upload.media().meter(), Optional.empty());
        }
        return exchange;
    }

    private <Q, R> Exchange<Q, R> open(MethodDescriptor<Q, R> method, Optional<Duration> timeout) {
        checkOpen();
        return Exchange.open(owner, channel.newCall(method, options(timeout)));
    }

    private <R> R answer(Retry.Repeat repeat, Optional<Duration> timeout, Function<Attempts, R> once) {
        Attempts attempts = new Attempts(
                retry, repeat, timeout, System::nanoTime, () -> ThreadLocalRandom.current().nextDouble());
        while (true) {
            checkOpen();
            MatchcutException error;
            try {
                return once.apply(attempts);
            } catch (StatusRuntimeException failed) {
                error = Errors.of(failed, owner.isShutdown());
            } catch (MatchcutException failed) {
                error = failed;
            }
            Optional<Duration> pause = attempts.pause(error);
            if (pause.isEmpty()) {
                throw error;
            }
            sleep(pause.get());
            owner.resetConnectBackoff(); // when to try again is decided here
        }
    }

    private static CallOptions options(Optional<Duration> timeout) {
        CallOptions options = CallOptions.DEFAULT.withMaxOutboundMessageSize(LARGEST);
        return timeout.map(left -> options.withDeadlineAfter(Retry.nanos(left), TimeUnit.NANOSECONDS)).orElse(options);
    }

    private static void sleep(Duration pause) {
        try {
            TimeUnit.NANOSECONDS.sleep(Retry.nanos(pause));
        } catch (InterruptedException interrupt) {
            Thread.currentThread().interrupt();
            throw Errors.own(Status.Code.CANCELLED, "The thread was interrupted between two tries of the call.");
        }
    }

    private void checkOpen() {
        if (owner.isShutdown()) {
            throw new IllegalStateException("this client is closed: make a new one");
        }
    }
}
