package matchcut.client;

import java.util.function.Function;
import java.util.function.Supplier;
import matchcut.v1.ClipQuery;
import matchcut.v1.IngestEnd;
import matchcut.v1.IngestHeader;
import matchcut.v1.IngestRequest;
import matchcut.v1.MediaChunk;
import matchcut.v1.Query;
import matchcut.v1.RecommendForUserLiveHeader;
import matchcut.v1.RecommendForUserLiveRequest;
import matchcut.v1.RecommendLiveHeader;
import matchcut.v1.RecommendLiveRequest;
import matchcut.v1.Temporal;

/** Media as the messages of the calls that take it. */
final class Requests {
    static final IngestRequest END =
            IngestRequest.newBuilder().setEnd(IngestEnd.getDefaultInstance()).build();

    private Requests() {}

    /**
     * What a call that takes media sends.
     *
     * @param header makes the first message; may read a file
     * @param media what follows
     * @param message makes a chunk a message
     */
    record Upload<Q>(Supplier<Q> header, Media media, Function<MediaChunk, Q> message) {}

    static Upload<IngestRequest> ingest(IngestHeader header, Media media) {
        IngestHeader.Builder filled = header.toBuilder().setMedia(media.header());
        Supplier<IngestRequest> first = () -> {
            if (filled.getContentSha256().isEmpty()) {
                filled.setContentSha256(media.sha256()); // once for all tries
            }
            return IngestRequest.newBuilder().setHeader(filled).build();
        };
        return new Upload<>(
                first, media, chunk -> IngestRequest.newBuilder().setChunk(chunk).build());
    }

    static Upload<RecommendLiveRequest> live(RecommendLiveHeader header, Media media) {
        RecommendLiveHeader filled = header.toBuilder().setMedia(media.header()).build();
        return new Upload<>(
                () -> RecommendLiveRequest.newBuilder().setHeader(filled).build(),
                media,
                chunk -> RecommendLiveRequest.newBuilder().setChunk(chunk).build());
    }

    /** The header alone where {@code media} is null: none comes. */
    static Upload<RecommendForUserLiveRequest> liveFor(RecommendForUserLiveHeader header, Media media) {
        RecommendForUserLiveHeader filled =
                media == null ? header : header.toBuilder().setMedia(media.header()).build();
        return new Upload<>(
                () -> RecommendForUserLiveRequest.newBuilder().setHeader(filled).build(),
                media,
                chunk -> RecommendForUserLiveRequest.newBuilder().setChunk(chunk).build());
    }

    /** A query of one message with a whole clip, which is read for it. */
    static Query clip(Media clip, Temporal temporal) {
        ClipQuery.Builder query = ClipQuery.newBuilder().setMedia(clip.header()).setTemporal(temporal);
        try (Chunks chunks = clip.open()) {
            chunks.forEachRemaining(query::addChunks);
        }
        return Query.newBuilder().setClip(query).build();
    }
}
