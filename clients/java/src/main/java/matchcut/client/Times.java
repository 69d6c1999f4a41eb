package matchcut.client;

import java.time.Duration;
import java.time.Instant;
import java.time.temporal.ChronoUnit;
import matchcut.v1.TimeRange;

/** The contract's times, which are whole microseconds. */
public final class Times {
    private Times() {}

    /** A length of time, in microseconds. */
    public static long micros(Duration length) {
        return length.dividedBy(ChronoUnit.MICROS.getDuration());
    }

    /** A point in time, in microseconds since the Unix epoch. */
    public static long micros(Instant time) {
        return ChronoUnit.MICROS.between(Instant.EPOCH, time);
    }

    /** Microseconds as a length of time. */
    public static Duration duration(long micros) {
        return Duration.of(micros, ChronoUnit.MICROS);
    }

    /** A stretch of media, from {@code start} up to {@code end}. */
    public static TimeRange range(Duration start, Duration end) {
        return TimeRange.newBuilder().setStartUs(micros(start)).setEndUs(micros(end)).build();
    }
}
