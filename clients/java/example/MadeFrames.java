import java.time.Duration;
import java.util.stream.IntStream;
import java.util.stream.Stream;
import matchcut.client.Media;
import matchcut.v1.Frame;
import matchcut.v1.FrameForm;

/** Frames of 64 x 64 pixels, RGB: two colours that move, two frames a second. */
final class MadeFrames {
    private static final int SIDE = 64;

    private MadeFrames() {}

    /** So many of them. */
    static Media first(int count) {
        return media(IntStream.range(0, count).mapToObj(at -> frame(at, at)));
    }

    /** The first four, again and again. */
    static Media endless() {
        return media(IntStream.iterate(0, turn -> turn + 1).mapToObj(turn -> frame(turn, turn % 4)));
    }

    private static Media media(Stream<Frame> frames) {
        return Media.frames(FrameForm.newBuilder().setWidth(SIDE).setHeight(SIDE).build(), frames::iterator);
    }

    /** The frame number {@code at} of those, taken as if it were number {@code turn}. */
    private static Frame frame(int turn, int at) {
        byte[] pixels = new byte[SIDE * SIDE * 3];
        for (int y = 0, to = 0; y < SIDE; y++) {
            for (int x = 0; x < SIDE; x++) {
                pixels[to++] = (byte) (x * 4 + at * 16);
                pixels[to++] = (byte) (y * 4);
                pixels[to++] = (byte) (x * y + at * 8);
            }
        }
        return Media.frame(Duration.ofMillis(500L * turn), pixels);
    }
}
