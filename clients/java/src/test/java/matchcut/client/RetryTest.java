package matchcut.client;

import io.grpc.Status;
import java.time.Duration;
import java.util.Optional;
import matchcut.client.MatchcutException.Facts;
import matchcut.client.Retry.Repeat;

/** The policy, with a clock and random numbers of the test's. */
final class RetryTest {
    private long now;

    static MatchcutException error(Status.Code code, Duration retryAfter) {
        return MatchcutException.of(new Facts(code, "", "", "", Optional.ofNullable(retryAfter)), null);
    }

    private static final MatchcutException AWAY = error(Status.Code.UNAVAILABLE, null);
    private static final MatchcutException FULL = error(Status.Code.RESOURCE_EXHAUSTED, Duration.ofSeconds(2));

    private Attempts attempts(Repeat repeat, Duration timeout, double draw) {
        return new Attempts(Retry.DEFAULT, repeat, Optional.ofNullable(timeout), () -> now, () -> draw);
    }

    @Test
    void pausesGrowAndAreShortenedByTheJitter() {
        Check.equal(Optional.of(Duration.ofMillis(100)), Retry.DEFAULT.pause(1, AWAY, 0));
        Check.equal(Optional.of(Duration.ofMillis(200)), Retry.DEFAULT.pause(2, AWAY, 0));
        Check.equal(Optional.of(Duration.ofMillis(300)), Retry.DEFAULT.pause(3, AWAY, 0.5));
        Check.equal(Optional.empty(), Retry.DEFAULT.pause(4, AWAY, 0));
    }

    @Test
    void lengthsBeyondAllMeasureAreNoFault() {
        Duration ever = java.time.temporal.ChronoUnit.FOREVER.getDuration();
        Retry policy = Retry.of(4, ever, ever);
        Check.that(policy.pause(1, AWAY, 0).isPresent(), "a pause");
        Check.that(policy.pause(1, error(Status.Code.UNAVAILABLE, ever), 0).isPresent(), "a wish");
        Check.equal(Long.MAX_VALUE, Retry.nanos(ever));
        Check.equal(0L, Retry.nanos(ever.negated()));
    }

    @Test
    void aTokenThatNoHeaderMayHaveIsRefusedUnsaid() {
        for (String token : new String[] {"two\nlines", "trailing\n", "caf\u00e9"}) {
            Throwable error =
                    Check.thrown(IllegalArgumentException.class, () -> Client.to("localhost:1").token(token));
            Check.that(!error.getMessage().contains(token), "the token stays unsaid");
        }
    }

    @Test
    void aTimeoutIsAboveZero() {
        Client client = Client.connect("localhost:1");
        for (Duration none : new Duration[] {Duration.ZERO, Duration.ofMillis(-1)}) {
            Check.thrown(IllegalArgumentException.class, () -> Client.to("localhost:1").timeout(none));
            Check.thrown(IllegalArgumentException.class, () -> client.within(none));
        }
        client.close();
    }

    @Test
    void pausesHaveAMaximum() {
        Retry policy = Retry.of(100, Duration.ofMillis(200), Duration.ofSeconds(1));
        Check.equal(Optional.of(Duration.ofSeconds(1)), policy.pause(99, AWAY, 0));
    }

    @Test
    void theServersWishIsObeyedAndLengthened() {
        Check.equal(Optional.of(Duration.ofSeconds(2)), Retry.DEFAULT.pause(1, FULL, 0));
        Check.equal(Optional.of(Duration.ofMillis(2250)), Retry.DEFAULT.pause(1, FULL, 0.5));
        MatchcutException later = error(Status.Code.UNAVAILABLE, Duration.ofSeconds(11));
        Check.equal(Optional.empty(), Retry.DEFAULT.pause(1, later, 0));
    }

    @Test
    void aLimitIsNotWaitedFor() {
        Check.equal(Optional.empty(), Retry.DEFAULT.pause(1, error(Status.Code.RESOURCE_EXHAUSTED, null), 0));
    }

    @Test
    void onlyWhatIsSafeIsRepeated() {
        MatchcutException other = error(Status.Code.INTERNAL, null);
        for (Repeat repeat : Repeat.values()) {
            Check.equal(repeat == Repeat.READ, attempts(repeat, null, 0).pause(AWAY).isPresent());
            Check.equal(repeat != Repeat.NEVER, attempts(repeat, null, 0).pause(FULL).isPresent());
            Check.equal(false, attempts(repeat, null, 0).pause(other).isPresent());
        }
    }

    @Test
    void triesShareTheTimeout() {
        Attempts attempts = attempts(Repeat.READ, Duration.ofMillis(250), 0);
        now += Duration.ofMillis(100).toNanos();
        Check.equal(Optional.of(Duration.ofMillis(150)), attempts.remaining());
        Check.equal(Optional.of(Duration.ofMillis(100)), attempts.pause(AWAY));
        now += Duration.ofMillis(100).toNanos();
        Check.equal(Optional.empty(), attempts.pause(AWAY)); // 200 ms of which 50 are left
        now += Duration.ofSeconds(1).toNanos();
        Check.equal(Optional.of(Duration.ZERO), attempts.remaining());
    }

    @Test
    void noPolicyIsRefused() {
        Check.thrown(IllegalArgumentException.class, () -> Retry.of(0, Duration.ZERO, Duration.ZERO));
        Check.thrown(IllegalArgumentException.class, () -> Retry.of(1, Duration.ofMillis(-1), Duration.ZERO));
        Check.equal(Optional.empty(), Retry.NEVER.pause(1, AWAY, 0));
    }
}
