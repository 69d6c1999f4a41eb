package matchcut.client;

import java.util.OptionalLong;

/** Tells how many bytes have been sent; where a call is sent again, only what goes beyond the try before. */
final class Meter {
    private final Progress progress;
    private final OptionalLong total;
    private long most;
    private long sent;

    /** {@code progress} may be null. */
    Meter(Progress progress, OptionalLong total) {
        this.progress = progress;
        this.total = total;
    }

    /** A new try begins. */
    synchronized void restart() {
        sent = 0;
    }

    /** So many more bytes have left. */
    synchronized void add(int bytes) {
        sent += bytes;
        if (progress != null && sent > most) {
            most = sent;
            progress.told(sent, total);
        }
    }
}
