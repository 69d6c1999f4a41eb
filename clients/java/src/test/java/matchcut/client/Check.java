package matchcut.client;

import java.util.Objects;
import java.util.function.BooleanSupplier;

/** What tests claim. */
final class Check {
    private Check() {}

    static void equal(Object expected, Object actual) {
        if (!Objects.equals(expected, actual)) {
            throw new AssertionError("expected " + expected + ", got " + actual);
        }
    }

    static void that(boolean claim, String what) {
        if (!claim) {
            throw new AssertionError(what);
        }
    }

    /** Runs {@code call} and returns what it throws, which must be of this class. */
    static <E extends Throwable> E thrown(Class<E> kind, Runnable call) {
        try {
            call.run();
        } catch (Throwable error) {
            if (kind.isInstance(error)) {
                return kind.cast(error);
            }
            throw new AssertionError("expected " + kind.getSimpleName(), error);
        }
        throw new AssertionError("expected " + kind.getSimpleName() + ", nothing was thrown");
    }

    /** Waits until it holds, for what another thread does. */
    static void soon(BooleanSupplier claim, String what) {
        for (int turn = 0; turn < 1000; turn++) {
            if (claim.getAsBoolean()) {
                return;
            }
            try {
                Thread.sleep(5);
            } catch (InterruptedException error) {
                throw new AssertionError(error);
            }
        }
        throw new AssertionError("not so after five seconds: " + what);
    }
}
