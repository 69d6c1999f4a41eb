package matchcut.client;

import com.google.protobuf.MessageLite;
import io.grpc.Metadata;
import io.grpc.Status;
import java.time.Duration;
import java.util.Map;
import java.util.Optional;
import matchcut.client.wire.Details;

/** Exceptions from a call's status and trailers. */
final class ErrorsTest {
    static Metadata trailers(Map<String, MessageLite> details) {
        Details.Status.Builder status = Details.Status.newBuilder();
        details.forEach((name, detail) -> status.addDetails(Details.Packed.newBuilder()
                .setTypeUrl("type.googleapis.com/google.rpc." + name)
                .setValue(detail.toByteString())));
        Metadata trailers = new Metadata();
        trailers.put(Errors.DETAILS, status.build().toByteArray());
        return trailers;
    }

    static MessageLite info(String reason) {
        return Details.ErrorInfo.newBuilder().setReason(reason).build();
    }

    static MessageLite retry(Duration delay) {
        return retry(delay.getSeconds(), delay.getNano());
    }

    private static MessageLite retry(long seconds, int nanos) {
        return Details.RetryInfo.newBuilder()
                .setRetryDelay(Details.RetryInfo.Delay.newBuilder().setSeconds(seconds).setNanos(nanos))
                .build();
    }

    @Test
    void eachCodeHasItsClass() {
        Map<Status.Code, Class<? extends MatchcutException>> classes = Map.of(
                Status.Code.INVALID_ARGUMENT, MatchcutException.InvalidInput.class,
                Status.Code.OUT_OF_RANGE, MatchcutException.InvalidInput.class,
                Status.Code.NOT_FOUND, MatchcutException.NotFound.class,
                Status.Code.FAILED_PRECONDITION, MatchcutException.FailedPrecondition.class,
                Status.Code.RESOURCE_EXHAUSTED, MatchcutException.Overloaded.class,
                Status.Code.DEADLINE_EXCEEDED, MatchcutException.DeadlineExceeded.class,
                Status.Code.CANCELLED, MatchcutException.Cancelled.class,
                Status.Code.UNAVAILABLE, MatchcutException.Unavailable.class,
                Status.Code.UNAUTHENTICATED, MatchcutException.Unauthenticated.class,
                Status.Code.PERMISSION_DENIED, MatchcutException.NotAllowed.class);
        for (Status.Code code : Status.Code.values()) {
            Class<?> expected = classes.getOrDefault(code, MatchcutException.ServerError.class);
            Check.equal(expected, Errors.of(Status.fromCode(code), null, false).getClass());
        }
    }

    @Test
    void detailsAreRead() {
        var field = Details.BadRequest.FieldViolation.newBuilder().setField("item.item_id");
        Metadata trailers = trailers(Map.of(
                "ErrorInfo", info("INVALID_INPUT"),
                "BadRequest", Details.BadRequest.newBuilder().addFieldViolations(field).build(),
                "RetryInfo", retry(Duration.ofMillis(1500)),
                "Help", info("something else")));
        Status status = Status.INVALID_ARGUMENT.withDescription("item.item_id is missing");
        MatchcutException error = Errors.of(status, trailers, false);
        Check.equal("item.item_id is missing", error.getMessage());
        Check.equal(Status.Code.INVALID_ARGUMENT, error.code());
        Check.equal("INVALID_INPUT", error.reason());
        Check.equal("item.item_id", error.field());
        Check.equal(Optional.of(Duration.ofMillis(1500)), error.retryAfter());
    }

    private static Duration wish(long seconds, int nanos) {
        Metadata trailers = trailers(Map.of("RetryInfo", retry(seconds, nanos)));
        return Errors.of(Status.UNAVAILABLE, trailers, false).retryAfter().orElseThrow();
    }

    @Test
    void aWishBeyondAllMeasureIsReadAndANegativeOneIs0() {
        Check.equal(Duration.ofSeconds(Long.MAX_VALUE), wish(Long.MAX_VALUE, 0));
        Check.equal(Duration.ofSeconds(Long.MAX_VALUE, 999_999_999), wish(Long.MAX_VALUE, 1_000_000_000));
        Check.equal(Duration.ZERO, wish(-1, 0));
        Check.equal(Duration.ZERO, wish(0, -1));
        Check.equal(Duration.ZERO, wish(Long.MIN_VALUE, -1));
    }

    @Test
    void withoutDetailsNothingIsMadeUp() {
        MatchcutException error = Errors.of(Status.NOT_FOUND, new Metadata(), false);
        Check.equal("The call failed with status NOT_FOUND and no message.", error.getMessage());
        Check.equal("", error.reason() + error.field());
        Check.equal(Optional.empty(), error.retryAfter());
    }

    @Test
    void garbledDetailsDoNotHideTheStatus() {
        Metadata trailers = new Metadata();
        trailers.put(Errors.DETAILS, new byte[] {1, 2, 3, (byte) 255});
        MatchcutException error = Errors.of(Status.NOT_FOUND.withDescription("no such item"), trailers, false);
        Check.equal("no such item", error.getMessage());
        Check.equal(1, error.getCause().getSuppressed().length);
    }

    @Test
    void aClosedClientCancels() {
        Check.equal(Status.Code.CANCELLED, Errors.of(Status.UNAVAILABLE, null, true).code());
    }
}
