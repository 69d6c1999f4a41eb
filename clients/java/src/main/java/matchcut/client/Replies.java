package matchcut.client;

import java.util.Iterator;
import java.util.NoSuchElementException;

/**
 * The replies of a call that goes on; use it in a {@code try} statement, or read it to its end.
 *
 * <p>Each step waits for the next reply and throws a {@link MatchcutException} where the call fails. It is for one
 * thread at a time; {@link #close} may come from any.
 *
 * @param <R> the reply's message
 */
public class Replies<R> implements Iterator<R>, Iterable<R>, AutoCloseable {
    private final Exchange<?, R> exchange;
    private R next;
    private volatile boolean over;

    Replies(Exchange<?, R> exchange) {
        this.exchange = exchange;
    }

    @Override
    public boolean hasNext() {
        if (next == null && !over) {
            next = read();
        }
        return next != null;
    }

    @Override
    public R next() {
        if (!hasNext()) {
            throw new NoSuchElementException("the call has ended");
        }
        R reply = next;
        next = null;
        return reply;
    }

    /** This very iterator: the replies come once. */
    @Override
    public Iterator<R> iterator() {
        return this;
    }

    /** Cancels the call, unless it has ended. */
    @Override
    public void close() {
        over = true;
        exchange.cancel();
    }

    /** The next reply to come; null at the end. */
    R read() {
        R reply = exchange.read();
        over |= reply == null;
        return reply;
    }
}
