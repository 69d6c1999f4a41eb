package matchcut.client;

import com.google.protobuf.ByteString;
import com.google.protobuf.UnsafeByteOperations;
import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.time.Duration;
import java.util.OptionalLong;
import matchcut.v1.ContainerForm;
import matchcut.v1.Frame;
import matchcut.v1.FrameForm;
import matchcut.v1.MediaChunk;
import matchcut.v1.MediaHeader;
import matchcut.v1.Picture;
import matchcut.v1.PictureForm;

/**
 * Media to be sent, and how it is to be read: a container, decoded frames or pictures.
 *
 * <p>It is read while it is sent, in a thread of the call's, never as a whole. What a caller's own iterator or stream
 * throws cancels the call and is thrown by it, an IOException as an UncheckedIOException.
 */
public final class Media {
    static final int CHUNK = 256 * 1024; // bytes a message: decoding starts early, and messages cost nothing

    private static final MediaHeader CONTAINER =
            MediaHeader.newBuilder().setContainer(ContainerForm.getDefaultInstance()).build();

    private final MediaHeader header;
    private final Opener opener;
    private final Sized sized;
    private final Progress progress;

    /** Opens the chunks from the beginning. */
    private interface Opener {
        Chunks open() throws IOException;
    }

    /** The length in bytes, of a container that can be read again; null elsewhere. */
    private interface Sized {
        long size() throws IOException;
    }

    private Media(MediaHeader header, Opener opener, Sized sized, Progress progress) {
        this.header = header;
        this.opener = opener;
        this.sized = sized;
        this.progress = progress;
    }

    /** A container in a file. It is hashed before it is ingested, so that what is there already costs no upload. */
    public static Media file(Path path) {
        return new Media(CONTAINER, () -> Chunks.of(Files.newInputStream(path), true), () -> Files.size(path), null);
    }

    /** A container in memory, likewise; it must not change while it is sent. */
    public static Media bytes(byte[] data) {
        ByteString whole = UnsafeByteOperations.unsafeWrap(data);
        return new Media(CONTAINER, () -> Chunks.of(whole), () -> data.length, null);
    }

    /** A container from a stream, which is read once and not closed. */
    public static Media stream(InputStream stream) {
        return new Media(CONTAINER, () -> Chunks.of(stream, false), null, null);
    }

    /** A container in pieces of any size; they are asked for once. */
    public static Media pieces(Iterable<byte[]> pieces) {
        return new Media(CONTAINER, () -> Chunks.ofPieces(pieces.iterator()), null, null);
    }

    /** Decoded frames, all of the size and layout of {@code form}; they are asked for once. */
    public static Media frames(FrameForm form, Iterable<Frame> frames) {
        MediaHeader header = MediaHeader.newBuilder().setFrames(form).build();
        return of(header, frames, frame -> MediaChunk.newBuilder().setFrame(frame).build());
    }

    /** JPEG or PNG files; they are asked for once. */
    public static Media pictures(Iterable<Picture> pictures) {
        MediaHeader header = MediaHeader.newBuilder().setPictures(PictureForm.getDefaultInstance()).build();
        return of(header, pictures, picture -> MediaChunk.newBuilder().setPicture(picture).build());
    }

    /** One frame, taken at {@code time}; its pixels must not change while it is sent. */
    public static Frame frame(Duration time, byte[] pixels) {
        ByteString wrapped = UnsafeByteOperations.unsafeWrap(pixels);
        return Frame.newBuilder().setTimeUs(Times.micros(time)).setPixels(wrapped).build();
    }

    /** One picture, taken at {@code time}: a whole JPEG or PNG file. */
    public static Picture picture(Duration time, byte[] file) {
        ByteString wrapped = UnsafeByteOperations.unsafeWrap(file);
        return Picture.newBuilder().setTimeUs(Times.micros(time)).setData(wrapped).build();
    }

    private static <T> Media of(MediaHeader header, Iterable<T> pieces, Chunks.Packer<T> packer) {
        return new Media(header, () -> Chunks.packed(pieces.iterator(), packer), null, null);
    }

    /** The same media, read with this sampling, these limits and segments. A form in {@code how} replaces the own. */
    public Media readAs(MediaHeader how) {
        MediaHeader merged = header.toBuilder().mergeFrom(how).build();
        return new Media(merged, opener, sized, progress);
    }

    /** The same media, a container of this format, e.g. "mpegts": its first frame comes earlier. */
    public Media format(String name) {
        ContainerForm form = ContainerForm.newBuilder().setFormat(name).build();
        return readAs(MediaHeader.newBuilder().setContainer(form).build());
    }

    /** The same media; {@code progress} is told as the bytes of the container leave. */
    public Media progress(Progress progress) {
        return new Media(header, opener, sized, progress);
    }

    MediaHeader header() {
        return header;
    }

    /** Whether it can be read again, so that a failed call may be repeated and the digest be known beforehand. */
    boolean replayable() {
        return sized != null;
    }

    /** Bytes in all; empty where that is not known. */
    OptionalLong size() {
        try {
            return sized == null ? OptionalLong.empty() : OptionalLong.of(sized.size());
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
    }

    Chunks open() {
        try {
            return opener.open();
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
    }

    /** Counts what the tries of one call send. */
    Meter meter() {
        return new Meter(progress, progress == null ? OptionalLong.empty() : size());
    }

    /**
     * SHA-256 of the container; empty where reading would use it up, and where it is read in part, of which the server
     * could not tell whether the digest is right.
     */
    ByteString sha256() {
        if (!replayable() || header.getLimits().getBytes() != 0) {
            return ByteString.EMPTY;
        }
        try (Chunks chunks = open()) {
            MessageDigest digest = MessageDigest.getInstance("SHA-256");
            while (chunks.hasNext()) {
                digest.update(chunks.next().getData().asReadOnlyByteBuffer());
            }
            return UnsafeByteOperations.unsafeWrap(digest.digest());
        } catch (NoSuchAlgorithmException error) {
            throw new IllegalStateException(error); // every Java has it
        }
    }
}
