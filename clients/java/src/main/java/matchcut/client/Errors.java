package matchcut.client;

import com.google.protobuf.ByteString;
import com.google.protobuf.InvalidProtocolBufferException;
import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import java.time.Duration;
import java.util.Optional;
import matchcut.client.MatchcutException.Facts;
import matchcut.client.wire.Details;

/** Reads a MatchcutException from the status and trailers of a call. */
final class Errors {
    static final Metadata.Key<byte[]> DETAILS =
            Metadata.Key.of("grpc-status-details-bin", Metadata.BINARY_BYTE_MARSHALLER);

    private Errors() {}

    /** {@code closed}: the client is, which gRPC tells as the server's absence. */
    static MatchcutException of(StatusRuntimeException error, boolean closed) {
        return closed ? closed(error) : of(error.getStatus(), error.getTrailers(), error);
    }

    static MatchcutException of(Status status, Metadata trailers, boolean closed) {
        return of(new StatusRuntimeException(status, trailers), closed);
    }

    private static MatchcutException closed(StatusRuntimeException error) {
        return MatchcutException.of(Facts.of(Status.Code.CANCELLED, "The client was closed during the call."), error);
    }

    /** An error that this client found by itself. */
    static MatchcutException own(Status.Code code, String message) {
        return MatchcutException.of(Facts.of(code, message), null);
    }

    private static MatchcutException of(Status status, Metadata trailers, Exception cause) {
        String reason = "";
        String field = "";
        Optional<Duration> retryAfter = Optional.empty();
        try {
            for (Details.Packed packed : details(trailers)) {
                ByteString value = packed.getValue();
                switch (packed.getTypeUrl().substring(packed.getTypeUrl().lastIndexOf('/') + 1)) {
                    case "google.rpc.ErrorInfo" -> reason = Details.ErrorInfo.parseFrom(value).getReason();
                    case "google.rpc.BadRequest" -> {
                        var wrong = Details.BadRequest.parseFrom(value).getFieldViolationsList();
                        field = wrong.isEmpty() ? field : wrong.get(0).getField();
                    }
                    case "google.rpc.RetryInfo" -> {
                        var delay = Details.RetryInfo.parseFrom(value).getRetryDelay();
                        retryAfter = Optional.of(wish(delay.getSeconds(), delay.getNanos()));
                    }
                    default -> {} // of no use here
                }
            }
        } catch (InvalidProtocolBufferException garbled) {
            cause.addSuppressed(garbled); // by a proxy; the status still says what is wrong
        }
        return MatchcutException.of(new Facts(status.getCode(), message(status), reason, field, retryAfter), cause);
    }

    /** At least 0; what is longer than a Duration holds is as long as that. */
    private static Duration wish(long seconds, int nanos) {
        try {
            Duration wish = Duration.ofSeconds(seconds, nanos);
            return wish.isNegative() ? Duration.ZERO : wish;
        } catch (ArithmeticException beyond) {
            return seconds < 0 ? Duration.ZERO : Duration.ofSeconds(Long.MAX_VALUE, 999_999_999);
        }
    }

    private static String message(Status status) {
        String said = status.getDescription();
        if (said == null || said.isEmpty()) {
            return "The call failed with status " + status.getCode() + " and no message.";
        }
        Throwable cause = status.getCause(); // only a status of this side's has one, such as "Connection refused"
        return cause == null ? said : said.lines().findFirst().orElse(said) + ": " + cause.getMessage();
    }

    private static Iterable<Details.Packed> details(Metadata trailers) throws InvalidProtocolBufferException {
        byte[] packed = trailers == null ? null : trailers.get(DETAILS);
        return Details.Status.parseFrom(packed == null ? new byte[0] : packed).getDetailsList();
    }
}
