package matchcut.client;

import io.grpc.BindableService;
import io.grpc.Metadata;
import io.grpc.Server;
import io.grpc.ServerCall;
import io.grpc.ServerCallHandler;
import io.grpc.ServerInterceptor;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.inprocess.InProcessChannelBuilder;
import io.grpc.inprocess.InProcessServerBuilder;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.UUID;
import java.util.concurrent.CopyOnWriteArrayList;

/** A server in this process, of whatever services a test makes up. */
final class FakeServer implements AutoCloseable {
    static final Retry QUICK = Retry.of(4, Duration.ofMillis(1), Duration.ofSeconds(1));
    static final Metadata.Key<String> AUTHORIZATION =
            Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER);

    private final String name = UUID.randomUUID().toString();
    private final Server server;
    private final List<Client> clients = new CopyOnWriteArrayList<>();
    final List<Metadata> headers = new CopyOnWriteArrayList<>();

    FakeServer(BindableService... services) {
        InProcessServerBuilder builder = InProcessServerBuilder.forName(name).intercept(new ServerInterceptor() {
            @Override
            public <Q, R> ServerCall.Listener<Q> interceptCall(
                    ServerCall<Q, R> call, Metadata sent, ServerCallHandler<Q, R> next) {
                headers.add(sent);
                return next.startCall(call, sent);
            }
        });
        for (BindableService service : services) {
            builder.addService(service);
        }
        try {
            server = builder.build().start();
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
    }

    /** A client of it. */
    Client client(ClientBuilder settings) {
        Client client = settings.over(InProcessChannelBuilder.forName(name).build());
        clients.add(client);
        return client;
    }

    /** A client of it with a tenant and quick retries. */
    Client client() {
        return client(Client.to(name).tenant("t").retry(QUICK));
    }

    /** An error as the real server sends it. */
    static StatusRuntimeException error(Status status, String reason) {
        return new StatusRuntimeException(status, ErrorsTest.trailers(Map.of("ErrorInfo", ErrorsTest.info(reason))));
    }

    @Override
    public void close() {
        clients.forEach(Client::close);
        server.shutdownNow();
    }
}
