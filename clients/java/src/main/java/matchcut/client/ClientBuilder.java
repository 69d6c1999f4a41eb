package matchcut.client;

import io.grpc.ChannelCredentials;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.TlsChannelCredentials;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Optional;

/** Settings of a {@link Client}; begins with plaintext, no token, no timeout and {@link Retry#DEFAULT}. */
public final class ClientBuilder {
    private final String target;
    private String tenant = "";
    private String token;
    private boolean tls;
    private Path authorities;
    private Path chain;
    private Path key;
    private Duration timeout;
    private Retry retry = Retry.DEFAULT;

    ClientBuilder(String target) {
        this.target = target;
    }

    /** Whose catalogue; "" is the default tenant. */
    public ClientBuilder tenant(String tenant) {
        this.tenant = tenant;
        return this;
    }

    /**
     * Bearer token, sent with each call; in clear text unless TLS is on.
     *
     * @throws IllegalArgumentException if no header may have it, as with the end of a line in it
     */
    public ClientBuilder token(String token) {
        if (!token.chars().allMatch(each -> each >= ' ' && each <= '~')) {
            throw new IllegalArgumentException(
                    "the token has characters that no header may have, such as the end of a line");
        }
        this.token = token.isEmpty() ? null : token;
        return this;
    }

    /** TLS with the authorities that Java trusts. */
    public ClientBuilder tls() {
        tls = true;
        return this;
    }

    /** TLS with the authorities in this PEM file. */
    public ClientBuilder tls(Path authorities) {
        this.authorities = authorities;
        return tls();
    }

    /** This client's own certificate chain and key, PEM files, where the server asks for one. The key is PKCS #8. */
    public ClientBuilder certificate(Path chain, Path key) {
        this.chain = chain;
        this.key = key;
        return this;
    }

    /**
     * How long a call may take, its retries included. Live calls have no bound but that of {@link Client#within}.
     *
     * @throws IllegalArgumentException if it is not above 0
     */
    public ClientBuilder timeout(Duration timeout) {
        this.timeout = Retry.aboveZero(timeout);
        return this;
    }

    /** When to send a failed call again. */
    public ClientBuilder retry(Retry retry) {
        this.retry = retry;
        return this;
    }

    /**
     * The client. It connects when the first call is made.
     *
     * @throws IllegalArgumentException a client certificate without TLS, or a file that is no certificate
     * @throws UncheckedIOException a file that cannot be read
     */
    public Client build() {
        ManagedChannel channel = Grpc.newChannelBuilder(target, credentials())
                .maxInboundMessageSize(Calls.LARGEST)
                .build();
        return over(channel);
    }

    /** The client over a channel that is there already; it belongs to the client from now on. */
    Client over(ManagedChannel channel) {
        Optional<Duration> bound = Optional.ofNullable(timeout);
        return new Client(new Calls(channel, token, retry), tenant, bound, Optional.empty());
    }

    private ChannelCredentials credentials() {
        if (!tls) {
            if (chain != null) {
                throw new IllegalArgumentException("a client certificate needs TLS: call tls() too");
            }
            return InsecureChannelCredentials.create();
        }
        try {
            TlsChannelCredentials.Builder credentials = TlsChannelCredentials.newBuilder();
            if (authorities != null) {
                credentials.trustManager(authorities.toFile());
            }
            if (chain != null) {
                credentials.keyManager(chain.toFile(), key.toFile());
            }
            return credentials.build();
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
    }
}
