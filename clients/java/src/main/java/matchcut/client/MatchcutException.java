package matchcut.client;

import io.grpc.Status;
import java.time.Duration;
import java.util.Optional;

/**
 * What the server, or the way to it, answers instead of a reply; a subclass for each kind of status.
 *
 * <p>{@link #getMessage} is one sentence for people that says what to do; {@link #getCause} is gRPC's exception, where
 * there was one.
 */
public class MatchcutException extends RuntimeException {
    private static final long serialVersionUID = 1;

    private final Status.Code code;
    private final String reason;
    private final String field;
    private final Duration retryAfter; // null where there is none

    /** What is known of an error. */
    record Facts(Status.Code code, String message, String reason, String field, Optional<Duration> retryAfter) {
        /** An error that this client found by itself. */
        static Facts of(Status.Code code, String message) {
            return new Facts(code, message, "", "", Optional.empty());
        }
    }

    MatchcutException(Facts facts, Throwable cause) {
        super(facts.message(), cause);
        this.code = facts.code();
        this.reason = facts.reason();
        this.field = facts.field();
        this.retryAfter = facts.retryAfter().orElse(null);
    }

    /** The exception of the class that goes with the status' code. */
    static MatchcutException of(Facts facts, Throwable cause) {
        return switch (facts.code()) {
            case INVALID_ARGUMENT, OUT_OF_RANGE -> new InvalidInput(facts, cause);
            case NOT_FOUND -> new NotFound(facts, cause);
            case FAILED_PRECONDITION -> new FailedPrecondition(facts, cause);
            case RESOURCE_EXHAUSTED -> new Overloaded(facts, cause);
            case DEADLINE_EXCEEDED -> new DeadlineExceeded(facts, cause);
            case CANCELLED -> new Cancelled(facts, cause);
            case UNAVAILABLE -> new Unavailable(facts, cause);
            case UNAUTHENTICATED -> new Unauthenticated(facts, cause);
            case PERMISSION_DENIED -> new NotAllowed(facts, cause);
            default -> new ServerError(facts, cause);
        };
    }

    /** The gRPC status' code, e.g. NOT_FOUND. */
    public Status.Code code() {
        return code;
    }

    /** A stable word in capitals, for programs, e.g. "ITEM_NOT_FOUND"; "" where the server gave none. */
    public String reason() {
        return reason;
    }

    /** Path of the request field at fault, e.g. "item.item_id"; "" where none is. */
    public String field() {
        return field;
    }

    /** How long to wait before the next try; empty where the server gave nothing. */
    public Optional<Duration> retryAfter() {
        return Optional.ofNullable(retryAfter);
    }

    /** A field is missing, malformed or out of range; {@link #field} says which, where the server knows. */
    public static final class InvalidInput extends MatchcutException {
        private static final long serialVersionUID = 1;

        InvalidInput(Facts facts, Throwable cause) {
            super(facts, cause);
        }
    }

    /** There is no such item. */
    public static final class NotFound extends MatchcutException {
        private static final long serialVersionUID = 1;

        NotFound(Facts facts, Throwable cause) {
            super(facts, cause);
        }
    }

    /** The request does not fit the server's state, e.g. vectors of another encoder. */
    public static final class FailedPrecondition extends MatchcutException {
        private static final long serialVersionUID = 1;

        FailedPrecondition(Facts facts, Throwable cause) {
            super(facts, cause);
        }
    }

    /**
     * All places are taken, or a limit is reached; {@link #retryAfter} says when to come back. With the reason
     * "DEVICE_MEMORY_FULL" it did not fit into the memory of the server's GPU, and waiting does not help.
     */
    public static final class Overloaded extends MatchcutException {
        private static final long serialVersionUID = 1;

        Overloaded(Facts facts, Throwable cause) {
            super(facts, cause);
        }
    }

    /** The call took longer than its timeout. */
    public static final class DeadlineExceeded extends MatchcutException {
        private static final long serialVersionUID = 1;

        DeadlineExceeded(Facts facts, Throwable cause) {
            super(facts, cause);
        }
    }

    /** The call was cancelled: by an interrupt, a cancelled io.grpc.Context, the client's end, or the server. */
    public static final class Cancelled extends MatchcutException {
        private static final long serialVersionUID = 1;

        Cancelled(Facts facts, Throwable cause) {
            super(facts, cause);
        }
    }

    /**
     * The server cannot be reached, or is shutting down. With the reason "DEVICE_LOST" its GPU is lost, and it has to
     * be started again before another try helps.
     */
    public static final class Unavailable extends MatchcutException {
        private static final long serialVersionUID = 1;

        Unavailable(Facts facts, Throwable cause) {
            super(facts, cause);
        }
    }

    /** The token or certificate is missing, or not accepted. */
    public static final class Unauthenticated extends MatchcutException {
        private static final long serialVersionUID = 1;

        Unauthenticated(Facts facts, Throwable cause) {
            super(facts, cause);
        }
    }

    /** The server was started with an option that forbids it, e.g. --users off (reason USERS_OFF). */
    public static final class NotAllowed extends MatchcutException {
        private static final long serialVersionUID = 1;

        NotAllowed(Facts facts, Throwable cause) {
            super(facts, cause);
        }
    }

    /** Any other status: a fault of the server. */
    public static final class ServerError extends MatchcutException {
        private static final long serialVersionUID = 1;

        ServerError(Facts facts, Throwable cause) {
            super(facts, cause);
        }
    }
}
