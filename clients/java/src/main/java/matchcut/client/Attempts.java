package matchcut.client;

import java.time.Duration;
import java.util.Optional;
import java.util.function.DoubleSupplier;
import java.util.function.LongSupplier;

/** The tries of one call, which share its timeout. */
final class Attempts {
    private final Retry policy;
    private final Retry.Repeat repeat;
    private final LongSupplier clock;
    private final DoubleSupplier draw;
    private final Optional<Duration> timeout;
    private final long begun;
    private int made;

    /**
     * Begins to count.
     *
     * @param timeout for all tries and pauses together; empty: no bound
     * @param clock in nanoseconds, from anywhere
     * @param draw gives numbers from 0 up to 1
     */
    Attempts(Retry policy, Retry.Repeat repeat, Optional<Duration> timeout, LongSupplier clock, DoubleSupplier draw) {
        this.policy = policy;
        this.repeat = repeat;
        this.timeout = timeout;
        this.clock = clock;
        this.draw = draw;
        this.begun = clock.getAsLong();
    }

    /** What is left for the next try, at least 0; empty: no bound. */
    Optional<Duration> remaining() {
        long used = clock.getAsLong() - begun;
        return timeout.map(all -> all.minusNanos(used)).map(left -> left.isNegative() ? Duration.ZERO : left);
    }

    /** Counts a failed try: how long to wait before the next one; empty: the error is the answer. */
    Optional<Duration> pause(MatchcutException error) {
        made++;
        if (!repeat.after(error)) {
            return Optional.empty();
        }
        Optional<Duration> left = remaining();
        return policy.pause(made, error, draw.getAsDouble())
                .filter(pause -> left.isEmpty() || pause.compareTo(left.get()) < 0);
    }
}
