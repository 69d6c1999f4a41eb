package matchcut.client;

import io.grpc.ClientCall;
import io.grpc.Context;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.Status;
import java.util.ArrayDeque;
import java.util.Optional;
import java.util.Queue;
import matchcut.v1.MediaChunk;

/** A streaming call under way: several threads may send, read and cancel it. Only what was read is asked for. */
final class Exchange<Q, R> {
    private final ManagedChannel owner;
    private final ClientCall<Q, R> call;
    private final Queue<R> replies = new ArrayDeque<>();
    private boolean sendable = true;
    private boolean givenUp;
    private Status status; // null while the call goes on
    private Metadata trailers;
    private Throwable failure; // of the sending thread, which ended the call
    private Thread sender;

    private Exchange(ManagedChannel owner, ClientCall<Q, R> call) {
        this.owner = owner;
        this.call = call;
    }

    /** Starts a call of {@code owner}'s. */
    static <Q, R> Exchange<Q, R> open(ManagedChannel owner, ClientCall<Q, R> call) {
        Exchange<Q, R> exchange = new Exchange<>(owner, call);
        call.start(exchange.new Listener(), new Metadata());
        call.request(1);
        return exchange;
    }

    /** Sends a message at once; false: the call takes no more. For small ones: nothing bounds how many wait. */
    synchronized boolean send(Q message) {
        if (sendable) {
            call.sendMessage(message);
        }
        return sendable;
    }

    /** Sends a message once the ones before have left; false: the call takes no more. */
    private synchronized boolean sendInTurn(Q message) throws InterruptedException {
        while (sendable && !call.isReady()) {
            wait();
        }
        return send(message);
    }

    /** Tells that no more messages come. */
    synchronized void finish() {
        if (sendable) {
            sendable = false;
            call.halfClose();
        }
    }

    /** Sends media in a thread of its own, then {@code end}, then finishes; what fails there ends the call. */
    void pump(Requests.Upload<Q> upload, Meter meter, Optional<Q> end) {
        Runnable work = () -> {
            try (Chunks chunks = upload.media().open()) {
                while (chunks.hasNext()) {
                    MediaChunk chunk = chunks.next();
                    if (!sendInTurn(upload.message().apply(chunk))) {
                        return;
                    }
                    meter.add(chunk.getData().size());
                }
                end.ifPresent(this::send);
                finish();
            } catch (Throwable error) {
                fail(error);
            }
        };
        synchronized (this) {
            if (sendable) { // else it is answered already, and nobody would stop the thread
                sender = new Thread(Context.current().wrap(work), "matchcut-send");
                sender.setDaemon(true);
                sender.start();
            }
        }
    }

    /** The next reply; null at the end. What the media threw is thrown as it is. */
    synchronized R read() {
        try {
            while (replies.isEmpty() && status == null) {
                wait();
            }
        } catch (InterruptedException interrupt) {
            cancel();
            Thread.currentThread().interrupt();
            throw Errors.own(Status.Code.CANCELLED, "The thread was interrupted, and the call cancelled.");
        }
        if (!replies.isEmpty()) {
            if (status == null) {
                call.request(1);
            }
            return replies.remove();
        }
        if (status.isOk()) {
            return null;
        }
        if (failure instanceof Error error) {
            throw error;
        }
        if (failure != null) {
            throw failure instanceof RuntimeException ours ? ours : new IllegalStateException(failure);
        }
        throw Errors.of(status, trailers, owner.isShutdown());
    }

    /** Ends the call now, unless it has ended. */
    synchronized void cancel() {
        if (status == null) {
            givenUp = true;
            sendable = false;
            call.cancel("The caller has given the call up.", null);
            stopSending();
        }
    }

    private synchronized void fail(Throwable error) {
        if (status == null && !givenUp) { // else it fails because it was told to stop
            failure = error;
            cancel();
        }
    }

    private void stopSending() {
        notifyAll();
        if (sender != null && sender != Thread.currentThread()) {
            sender.interrupt(); // it may wait in the media's source, which then ends, or its next message is not sent
        }
    }

    private final class Listener extends ClientCall.Listener<R> {
        @Override
        public void onReady() {
            synchronized (Exchange.this) {
                Exchange.this.notifyAll();
            }
        }

        @Override
        public void onMessage(R reply) {
            synchronized (Exchange.this) {
                replies.add(reply);
                Exchange.this.notifyAll();
            }
        }

        @Override
        public void onClose(Status ended, Metadata last) {
            synchronized (Exchange.this) {
                status = ended;
                trailers = last;
                sendable = false;
                stopSending();
            }
        }
    }
}
