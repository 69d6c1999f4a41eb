package matchcut.client;

import com.google.protobuf.ByteString;
import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.GeneralSecurityException;
import java.security.MessageDigest;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Iterator;
import java.util.List;
import java.util.OptionalLong;
import matchcut.v1.FrameForm;
import matchcut.v1.MediaChunk;
import matchcut.v1.MediaHeader;
import matchcut.v1.MediaLimits;

/** Media as chunks. */
final class MediaTest {
    static byte[] bytes(int length) {
        byte[] data = new byte[length];
        for (int at = 0; at < length; at++) {
            data[at] = (byte) (at * 31 + at / 251);
        }
        return data;
    }

    private static List<Integer> sizes(Media media, byte[] expected) {
        List<Integer> sizes = new ArrayList<>();
        ByteString whole = ByteString.EMPTY;
        try (Chunks chunks = media.open()) {
            for (MediaChunk chunk : (Iterable<MediaChunk>) () -> chunks) {
                sizes.add(chunk.getData().size());
                whole = whole.concat(chunk.getData());
            }
        }
        Check.equal(ByteString.copyFrom(expected), whole);
        return sizes;
    }

    @Test
    void allContainersAreCutTheSame() throws IOException {
        byte[] data = bytes(600_000);
        List<Integer> expected = List.of(Media.CHUNK, Media.CHUNK, 600_000 - 2 * Media.CHUNK);
        Path file = Files.createTempFile("matchcut", ".bin");
        try {
            Files.write(file, data);
            Check.equal(expected, sizes(Media.file(file), data));
            Check.equal(OptionalLong.of(600_000), Media.file(file).size());
        } finally {
            Files.delete(file);
        }
        Check.equal(expected, sizes(Media.bytes(data), data));
        Check.equal(expected, sizes(Media.stream(new ByteArrayInputStream(data)), data));
        Check.equal(expected, sizes(Media.pieces(List.of(data)), data));
    }

    @Test
    void piecesMayBeEmptyAndSmall() {
        Media media = Media.pieces(List.of(new byte[0], bytes(3), new byte[0], bytes(2)));
        Check.equal(List.of(3, 2), sizes(media, new byte[] {0, 31, 62, 0, 31}));
        Check.equal(List.of(), sizes(Media.bytes(new byte[0]), new byte[0]));
    }

    @Test
    void onlyWhatCanBeReadAgainHasADigest() throws GeneralSecurityException {
        byte[] data = bytes(300_000);
        ByteString digest = ByteString.copyFrom(MessageDigest.getInstance("SHA-256").digest(data));
        Check.equal(digest, Media.bytes(data).sha256());
        Check.equal(ByteString.EMPTY, Media.stream(new ByteArrayInputStream(data)).sha256());
        MediaHeader part = MediaHeader.newBuilder().setLimits(MediaLimits.newBuilder().setBytes(10)).build();
        Check.equal(ByteString.EMPTY, Media.bytes(data).readAs(part).sha256());
        Check.equal(OptionalLong.empty(), Media.pieces(List.of(data)).size());
    }

    @Test
    void theFormStaysUnlessAnotherIsNamed() {
        MediaHeader limits = MediaHeader.newBuilder().setLimits(MediaLimits.newBuilder().setFrames(2)).build();
        FrameForm form = FrameForm.newBuilder().setWidth(2).setHeight(1).build();
        MediaHeader header = Media.frames(form, List.of(Media.frame(Duration.ZERO, bytes(6)))).readAs(limits).header();
        Check.equal(form, header.getFrames());
        Check.equal(2L, header.getLimits().getFrames());
        MediaHeader stream = Media.bytes(bytes(1)).format("mpegts").readAs(limits).header();
        Check.equal("mpegts", stream.getContainer().getFormat());
    }

    @Test
    void framesKeepTimesAndPixels() {
        FrameForm form = FrameForm.newBuilder().setWidth(2).setHeight(1).build();
        try (Chunks chunks = Media.frames(form, List.of(Media.frame(Duration.ofMillis(1500), bytes(6)))).open()) {
            MediaChunk chunk = chunks.next();
            Check.equal(1_500_000L, chunk.getFrame().getTimeUs());
            Check.equal(ByteString.copyFrom(bytes(6)), chunk.getFrame().getPixels());
            Check.equal(false, chunks.hasNext());
        }
    }

    @Test
    void whatFailsToBeReadIsThrown() {
        Media none = Media.file(Path.of("/there/is/no/such/file"));
        Check.thrown(UncheckedIOException.class, none::open);
        Check.thrown(UncheckedIOException.class, none::size);
        InputStream broken = new InputStream() {
            @Override
            public int read() throws IOException {
                throw new IOException("the disk is gone");
            }
        };
        try (Chunks chunks = Media.stream(broken).open()) {
            UncheckedIOException error = Check.thrown(UncheckedIOException.class, chunks::hasNext);
            Check.equal("the disk is gone", error.getCause().getMessage());
        }
    }

    @Test
    void progressTellsOfEachTryOnlyWhatIsNew() {
        List<Long> told = new ArrayList<>();
        Meter meter = new Meter((sent, total) -> told.add(sent), OptionalLong.of(30));
        meter.add(10);
        meter.add(10);
        meter.restart();
        meter.add(10);
        meter.add(10);
        meter.add(10);
        Check.equal(List.of(10L, 20L, 30L), told);
    }

    @Test
    void pagesAreAskedForAsTheyAreRead() {
        List<String> asked = new ArrayList<>();
        Iterator<matchcut.v1.Item> items = Pages.stream(token -> {
            asked.add(token);
            var page = matchcut.v1.ListItemsResponse.newBuilder();
            return switch (token) {
                case "" -> page.addItems(matchcut.v1.Item.newBuilder().setItemId("a")).setNextPageToken("2").build();
                case "2" -> page.setNextPageToken("3").build(); // a page may be empty
                default -> page.addItems(matchcut.v1.Item.newBuilder().setItemId("b")).build();
            };
        }).iterator();
        Check.equal(List.of(), asked);
        Check.equal("a", items.next().getItemId());
        Check.equal(List.of(""), asked);
        Check.equal("b", items.next().getItemId());
        Check.equal(List.of("", "2", "3"), asked);
        Check.equal(false, items.hasNext());
    }
}
