package matchcut.client;

import com.google.protobuf.ByteString;
import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.util.Iterator;
import java.util.NoSuchElementException;
import matchcut.v1.MediaChunk;

/** Media as the chunks of one call, made as they are asked for. */
final class Chunks implements Iterator<MediaChunk>, AutoCloseable {
    private final Pieces pieces;
    private final AutoCloseable behind;
    private MediaChunk next;

    /** What chunks are made of. */
    private interface Pieces {
        /** The next chunk; null at the end. */
        MediaChunk next() throws IOException;
    }

    /** Makes a piece a chunk. */
    interface Packer<T> {
        MediaChunk pack(T piece);
    }

    private Chunks(Pieces pieces, AutoCloseable behind) {
        this.pieces = pieces;
        this.behind = behind;
    }

    /** What a stream gives, until its end; {@code owned}: the stream is closed with the chunks. */
    static Chunks of(InputStream stream, boolean owned) {
        byte[] buffer = new byte[Media.CHUNK];
        Pieces pieces = () -> {
            int length = stream.read(buffer); // as much as there is: a live stream is not waited for
            return length < 0 ? null : data(ByteString.copyFrom(buffer, 0, length));
        };
        return new Chunks(pieces, owned ? stream : () -> {});
    }

    /** Bytes in memory, in slices. */
    static Chunks of(ByteString whole) {
        return new Chunks(new Slices(whole), () -> {});
    }

    /** Pieces of any size, each in slices. */
    static Chunks ofPieces(Iterator<byte[]> pieces) {
        Slices[] current = {new Slices(ByteString.EMPTY)};
        return new Chunks(
                () -> {
                    MediaChunk slice = current[0].next();
                    while (slice == null && pieces.hasNext()) {
                        current[0] = new Slices(ByteString.copyFrom(pieces.next()));
                        slice = current[0].next();
                    }
                    return slice;
                },
                () -> {});
    }

    /** Pieces that are a chunk each. */
    static <T> Chunks packed(Iterator<T> pieces, Packer<T> packer) {
        return new Chunks(() -> pieces.hasNext() ? packer.pack(pieces.next()) : null, () -> {});
    }

    @Override
    public boolean hasNext() {
        try {
            next = next == null ? pieces.next() : next;
            return next != null;
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
    }

    @Override
    public MediaChunk next() {
        if (!hasNext()) {
            throw new NoSuchElementException();
        }
        MediaChunk chunk = next;
        next = null;
        return chunk;
    }

    @Override
    public void close() {
        try {
            behind.close();
        } catch (Exception error) {
            // it was only read from: nothing is lost
        }
    }

    private static MediaChunk data(ByteString bytes) {
        return MediaChunk.newBuilder().setData(bytes).build();
    }

    /** Slices of bytes in memory, which share them. */
    private static final class Slices implements Pieces {
        private final ByteString whole;
        private int start;

        Slices(ByteString whole) {
            this.whole = whole;
        }

        @Override
        public MediaChunk next() {
            if (start == whole.size()) {
                return null;
            }
            int end = Math.min(whole.size(), start + Media.CHUNK);
            ByteString slice = whole.substring(start, end);
            start = end;
            return data(slice);
        }
    }
}
