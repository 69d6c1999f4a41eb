package matchcut.client;

import java.util.OptionalLong;

/** Is told how much of a container has been sent. */
@FunctionalInterface
public interface Progress {
    /**
     * Called as bytes leave, in the thread that sends them. Where a call is sent again, only what goes beyond the try
     * before is told. An exception cancels the call and is thrown by it.
     *
     * @param sent bytes so far
     * @param total bytes in all; empty where the media's length is not known
     */
    void told(long sent, OptionalLong total);
}
