package matchcut.client;

import java.time.Duration;
import java.util.Optional;

/**
 * When a call that failed is sent again: exponential backoff with jitter, for calls that are safe to send again.
 *
 * <p>Sent again are reads, and ingests whose source can be read twice (a file, bytes, vectors), when the server is
 * unavailable or says when to come back. A removal is sent again only when the server refused to start it.
 *
 * @param attempts tries in all; 1 means none again
 * @param initial before the second try
 * @param maximum the most between two tries; a server that asks for more is not waited for: its error is thrown
 * @param multiplier growth of the pause from try to try
 */
public record Retry(int attempts, Duration initial, Duration maximum, double multiplier) {
    /** Four tries: 0.1 s after the first, then twice as long each time, 10 s at most. */
    public static final Retry DEFAULT = new Retry(4, Duration.ofMillis(100), Duration.ofSeconds(10), 2);

    /** One try. */
    public static final Retry NEVER = new Retry(1, Duration.ZERO, Duration.ZERO, 1);

    /** Checks that the policy is one. */
    public Retry {
        if (attempts < 1 || initial.isNegative() || maximum.isNegative() || !(multiplier >= 0)) {
            throw new IllegalArgumentException("a retry needs attempts of at least 1, and nothing negative");
        }
    }

    /** DEFAULT with another number of tries and other pauses. */
    public static Retry of(int attempts, Duration initial, Duration maximum) {
        return new Retry(attempts, initial, maximum, DEFAULT.multiplier);
    }

    /** Which errors a call may be sent again after. */
    enum Repeat {
        /** None: the source is used up. */
        NEVER,
        /** For what must not be done twice: those that say that it was not begun. */
        REFUSED,
        /** For reads, and for what is done once although it is sent twice. */
        READ;

        boolean after(MatchcutException error) {
            return this != NEVER && error instanceof MatchcutException.Overloaded
                    || this == READ && error instanceof MatchcutException.Unavailable;
        }
    }

    /**
     * How long to wait after a failed try; empty: give up.
     *
     * @param attempt the number of the try, from 1
     * @param draw the jitter, uniform in [0, 1): a backoff shrinks by up to half, a server's wish grows by up to a
     *     quarter, so that callers who were turned away together do not come back together
     */
    Optional<Duration> pause(int attempt, MatchcutException error, double draw) {
        if (attempt >= attempts) {
            return Optional.empty();
        }
        if (error.retryAfter().isPresent()) {
            Duration wish = error.retryAfter().get();
            return wish.compareTo(maximum) <= 0 ? Optional.of(times(wish, 1 + draw / 4)) : Optional.empty();
        }
        if (error instanceof MatchcutException.Overloaded) {
            return Optional.empty(); // a limit, such as a message's size, that waiting does not lift
        }
        double growth = Math.pow(multiplier, attempt - 1) * nanos(initial);
        return Optional.of(Duration.ofNanos((long) (Math.min(nanos(maximum), growth) * (1 - draw / 2))));
    }

    private static Duration times(Duration length, double factor) {
        return Duration.ofNanos((long) (nanos(length) * factor));
    }

    /** A timeout as it is; IllegalArgumentException if it is not above 0. */
    static Duration aboveZero(Duration timeout) {
        if (timeout.isNegative() || timeout.isZero()) {
            throw new IllegalArgumentException("a timeout is above 0, not " + timeout);
        }
        return timeout;
    }

    /** In nanoseconds; what is longer than a long holds, about 292 years, is as long as that. */
    static long nanos(Duration length) {
        try {
            return length.toNanos();
        } catch (ArithmeticException beyond) {
            return length.isNegative() ? 0 : Long.MAX_VALUE;
        }
    }
}
