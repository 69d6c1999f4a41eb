package matchcut.client;

import java.time.Duration;
import java.util.Arrays;
import java.util.Iterator;
import java.util.List;
import java.util.Optional;
import java.util.function.Consumer;
import java.util.stream.Stream;
import matchcut.client.Retry.Repeat;
import matchcut.client.wire.HealthGrpc;
import matchcut.client.wire.HealthProto.HealthCheckRequest;
import matchcut.v1.CatalogGrpc;
import matchcut.v1.CountEventsRequest;
import matchcut.v1.CountEventsResponse;
import matchcut.v1.Event;
import matchcut.v1.EventsGrpc;
import matchcut.v1.ForgetUserRequest;
import matchcut.v1.ForgetUserResponse;
import matchcut.v1.GetItemRequest;
import matchcut.v1.GetItemResponse;
import matchcut.v1.IngestHeader;
import matchcut.v1.IngestResponse;
import matchcut.v1.IngestVectorsRequest;
import matchcut.v1.Item;
import matchcut.v1.ListItemsRequest;
import matchcut.v1.ListItemsResponse;
import matchcut.v1.Query;
import matchcut.v1.RankOptions;
import matchcut.v1.RecommendForUserLiveHeader;
import matchcut.v1.RecommendForUserRequest;
import matchcut.v1.RecommendForUserResponse;
import matchcut.v1.RecommendLiveHeader;
import matchcut.v1.RecommendRequest;
import matchcut.v1.RecommendResponse;
import matchcut.v1.RecommenderGrpc;
import matchcut.v1.RecordEventsRequest;
import matchcut.v1.RecordEventsResponse;
import matchcut.v1.RemoveItemRequest;
import matchcut.v1.Segment;
import matchcut.v1.SwitchEncoderRequest;
import matchcut.v1.SwitchEncoderResponse;
import matchcut.v1.Temporal;

/**
 * A connection to a matchcut server; threads may share it. Use it in a {@code try} statement, or call {@link #close}.
 *
 * <p>Each method blocks until it has its result and throws a {@link MatchcutException} where the call fails. An
 * interrupt of the calling thread, or the end of the {@code io.grpc.Context} that the call was made in, cancels it. In
 * requests that a caller makes, an empty tenant means the client's.
 */
public final class Client implements AutoCloseable {
    private static final int ONE_MESSAGE = 8 * 1024 * 1024; // bytes: more is better decoded while it arrives

    private final Calls calls;
    private final String tenant;
    private final Optional<Duration> timeout;
    private final Optional<Duration> liveTimeout;

    Client(Calls calls, String tenant, Optional<Duration> timeout, Optional<Duration> liveTimeout) {
        this.calls = calls;
        this.tenant = tenant;
        this.timeout = timeout;
        this.liveTimeout = liveTimeout;
    }

    /** Settings for a client of the server at {@code target}: host:port, or any name that gRPC resolves. */
    public static ClientBuilder to(String target) {
        return new ClientBuilder(target);
    }

    /** A client with the default settings. */
    public static Client connect(String target) {
        return to(target).build();
    }

    /**
     * The same connection for calls that may take this long, retries included; live ones too.
     *
     * @throws IllegalArgumentException if it is not above 0
     */
    public Client within(Duration timeout) {
        Optional<Duration> bound = Optional.of(Retry.aboveZero(timeout));
        return new Client(calls, tenant, bound, bound);
    }

    /** The same connection for another tenant. */
    public Client tenant(String tenant) {
        return new Client(calls, tenant, timeout, liveTimeout);
    }

    /** Cancels what is under way and closes the connection, also for those that {@link #within} and others gave. */
    @Override
    public void close() {
        calls.close();
    }

    // The catalogue

    /** Puts one item in, of which only the id is known. */
    public IngestResponse ingest(String itemId, Media media) {
        return ingest(Item.newBuilder().setItemId(itemId).build(), media);
    }

    /** Puts one item in: id, title, tags and attributes are the message's. Nothing is kept unless all media arrives. */
    public IngestResponse ingest(Item item, Media media) {
        return ingest(IngestHeader.newBuilder().setItem(item).build(), media);
    }

    /** Puts one item in, or with for_next_encoder its vectors aside; media and digest of the header come from media. */
    public IngestResponse ingest(IngestHeader header, Media media) {
        IngestHeader filled = header.toBuilder().setTenant(or(header.getTenant())).build();
        return calls.upload(
                CatalogGrpc.getIngestMethod(), Requests.ingest(filled, media), Optional.of(Requests.END), timeout);
    }

    /** Puts one item in from vectors of the encoder that the server runs. */
    public IngestResponse ingestVectors(Item item, List<Segment> segments) {
        return ingestVectors(IngestVectorsRequest.newBuilder().setItem(item).addAllSegments(segments).build());
    }

    /** Puts one item in from vectors. */
    public IngestResponse ingestVectors(IngestVectorsRequest request) {
        IngestVectorsRequest filled = request.toBuilder().setTenant(or(request.getTenant())).build();
        return calls.unary(CatalogGrpc.getIngestVectorsMethod(), () -> filled, Repeat.READ, timeout);
    }

    /** One item with its segments. NotFound if there is none. */
    public GetItemResponse get(String itemId) {
        return get(itemId, false);
    }

    /** One item with its segments, and their vectors if asked for. NotFound if there is none. */
    public GetItemResponse get(String itemId, boolean vectors) {
        GetItemRequest request = GetItemRequest.newBuilder()
                .setTenant(tenant)
                .setItemId(itemId)
                .setIncludeVectors(vectors)
                .build();
        return calls.unary(CatalogGrpc.getGetItemMethod(), () -> request, Repeat.READ, timeout);
    }

    /** All items in the order of their ids, asked for in pages as the stream is read. */
    public Stream<Item> items() {
        return items(ListItemsRequest.getDefaultInstance());
    }

    /** Items in the order of their ids, from the page that the request names; asked for as the stream is read. */
    public Stream<Item> items(ListItemsRequest request) {
        return Pages.stream(token -> page(token.isEmpty() ? request : request.toBuilder().setPageToken(token).build()));
    }

    /** One page of items. */
    public ListItemsResponse page(ListItemsRequest request) {
        ListItemsRequest filled = request.toBuilder().setTenant(or(request.getTenant())).build();
        return calls.unary(CatalogGrpc.getListItemsMethod(), () -> filled, Repeat.READ, timeout);
    }

    /** Removes one item. NotFound if there is none. */
    public void remove(String itemId) {
        remove(RemoveItemRequest.newBuilder().setItemId(itemId).build());
    }

    /** Removes one item; false: with allow_missing, there was none. */
    public boolean remove(RemoveItemRequest request) {
        RemoveItemRequest filled = request.toBuilder().setTenant(or(request.getTenant())).build();
        return calls.unary(CatalogGrpc.getRemoveItemMethod(), () -> filled, Repeat.REFUSED, timeout)
                .getRemoved();
    }

    /** Lets the server's next encoder take over, for all tenants; with dry_run only tells how it stands. */
    public SwitchEncoderResponse switchEncoder(SwitchEncoderRequest request) {
        Repeat repeat = request.getDryRun() ? Repeat.READ : Repeat.REFUSED;
        return calls.unary(CatalogGrpc.getSwitchEncoderMethod(), () -> request, repeat, timeout);
    }

    // Rankings

    /** Ranks the catalogue against items of it, which are left out themselves. */
    public RecommendResponse recommend(String... itemIds) {
        return recommend(Queries.items(itemIds), RankOptions.getDefaultInstance());
    }

    /** Ranks the catalogue against a query that is complete, see {@link Queries}. */
    public RecommendResponse recommend(Query query, RankOptions options) {
        RecommendRequest request = RecommendRequest.newBuilder()
                .setTenant(tenant)
                .setQuery(query)
                .setOptions(options)
                .build();
        return calls.unary(RecommenderGrpc.getRecommendMethod(), () -> request, Repeat.READ, timeout);
    }

    /** Ranks the catalogue against a clip. */
    public RecommendResponse recommend(Media clip) {
        return recommend(clip, RankOptions.getDefaultInstance());
    }

    /** Ranks the catalogue against a clip, its segments compared. */
    public RecommendResponse recommend(Media clip, RankOptions options) {
        return recommend(clip, options, Temporal.TEMPORAL_UNSPECIFIED);
    }

    /** Ranks the catalogue against a clip. One that is large, or of unknown length, goes through RecommendLive. */
    public RecommendResponse recommend(Media clip, RankOptions options, Temporal temporal) {
        if (clip.size().orElse(Long.MAX_VALUE) > ONE_MESSAGE) {
            RecommendLiveHeader header = RecommendLiveHeader.newBuilder()
                    .setTenant(tenant)
                    .setOptions(options.toBuilder().setFramesPerUpdate(Integer.MAX_VALUE)) // only the last one counts
                    .setTemporal(temporal)
                    .build();
            return calls.upload(
                    RecommenderGrpc.getRecommendLiveMethod(), Requests.live(header, clip), Optional.empty(), timeout);
        }
        RecommendRequest.Builder request = RecommendRequest.newBuilder().setTenant(tenant).setOptions(options);
        return calls.unary(
                RecommenderGrpc.getRecommendMethod(),
                () -> request.setQuery(Requests.clip(clip, temporal)).build(),
                Repeat.READ,
                timeout);
    }

    /** Ranks again and again while media arrives. */
    public Replies<RecommendResponse> live(Media media) {
        return live(media, RankOptions.getDefaultInstance());
    }

    /** Ranks again and again while media arrives: after each {@code frames_per_update} more used frames. */
    public Replies<RecommendResponse> live(Media media, RankOptions options) {
        return live(media, RecommendLiveHeader.newBuilder().setOptions(options).build());
    }

    /** Ranks again and again while media arrives; the header's own word on how it comes is not looked at. */
    public Replies<RecommendResponse> live(Media media, RecommendLiveHeader header) {
        RecommendLiveHeader filled = header.toBuilder().setTenant(or(header.getTenant())).build();
        return new Replies<>(
                calls.live(RecommenderGrpc.getRecommendLiveMethod(), Requests.live(filled, media), liveTimeout));
    }

    // Users

    /** Records events, in calls of 500; returns how many are new, known already, and of unknown items. */
    public RecordEventsResponse record(Event... events) {
        return record(Arrays.asList(events));
    }

    /** Records events, in calls of 500; returns how many are new, known already, and of unknown items. */
    public RecordEventsResponse record(Iterable<Event> events) {
        return record(events, soFar -> {});
    }

    /**
     * Records events, in calls of 500, each durable when it is answered; {@code progress} is told the sum after each.
     * Where one fails, those before it are kept. All may be recorded again: what is there already changes nothing.
     */
    public RecordEventsResponse record(Iterable<Event> events, Consumer<RecordEventsResponse> progress) {
        RecordEventsResponse sum = RecordEventsResponse.getDefaultInstance();
        Iterator<Event> left = events.iterator();
        for (List<Event> batch = Events.batch(left); !batch.isEmpty(); batch = Events.batch(left)) {
            RecordEventsRequest request = RecordEventsRequest.newBuilder()
                    .setTenant(tenant)
                    .addAllEvents(batch)
                    .build();
            sum = Events.sum(sum, calls.unary(EventsGrpc.getRecordEventsMethod(), () -> request, Repeat.READ, timeout));
            progress.accept(sum);
        }
        return sum;
    }

    /** Deletes all that the server keeps of a user. Counts of 0 tell that there was nothing. */
    public ForgetUserResponse forget(String userId) {
        ForgetUserRequest request = ForgetUserRequest.newBuilder().setTenant(tenant).setUserId(userId).build();
        return calls.unary(EventsGrpc.getForgetUserMethod(), () -> request, Repeat.REFUSED, timeout);
    }

    /** How many users did what with these items, or with the items that have the most users. */
    public CountEventsResponse countEvents(CountEventsRequest request) {
        CountEventsRequest filled = request.toBuilder().setTenant(or(request.getTenant())).build();
        return calls.unary(EventsGrpc.getCountEventsMethod(), () -> filled, Repeat.READ, timeout);
    }

    /** What a user should see now, of what the user did. */
    public RecommendForUserResponse recommendFor(String userId) {
        return recommendFor(RecommendForUserRequest.newBuilder().setUserId(userId).build());
    }

    /** What a user should see now: of what the user did, or of a history given here, and of a current interest. */
    public RecommendForUserResponse recommendFor(RecommendForUserRequest request) {
        RecommendForUserRequest filled = request.toBuilder().setTenant(or(request.getTenant())).build();
        return calls.unary(RecommenderGrpc.getRecommendForUserMethod(), () -> filled, Repeat.READ, timeout);
    }

    /** What a user should see now, a clip being of interest; it goes in one message. Its temporal is the request's. */
    public RecommendForUserResponse recommendFor(RecommendForUserRequest request, Media clip) {
        RecommendForUserRequest.Builder filled = request.toBuilder().setTenant(or(request.getTenant()));
        Temporal temporal = request.getCurrent().getClip().getTemporal();
        return calls.unary(
                RecommenderGrpc.getRecommendForUserMethod(),
                () -> filled.setCurrent(Requests.clip(clip, temporal)).build(),
                clip.replayable() ? Repeat.READ : Repeat.NEVER,
                timeout);
    }

    /** A user's list that follows what the user does. */
    public LiveList recommendLiveFor(String userId) {
        return recommendLiveFor(RecommendForUserLiveHeader.newBuilder().setUserId(userId).build());
    }

    /** A user's list that follows what the user does; the first one is there when this returns. */
    public LiveList recommendLiveFor(RecommendForUserLiveHeader header) {
        LiveList list = open(header, null);
        try {
            list.begin();
            return list;
        } catch (RuntimeException error) {
            list.close();
            throw error;
        }
    }

    /** A user's list that follows what the user does, and live media; the end of the media is the end of the call. */
    public LiveList recommendLiveFor(RecommendForUserLiveHeader header, Media media) {
        return open(header, media);
    }

    // The server

    /** "SERVING" or "NOT_SERVING". */
    public String health() {
        return health("");
    }

    /** "SERVING" or "NOT_SERVING" for one service, "" for all; NotFound if the server has no such one. */
    public String health(String service) {
        HealthCheckRequest request = HealthCheckRequest.newBuilder().setService(service).build();
        return calls.unary(HealthGrpc.getCheckMethod(), () -> request, Repeat.READ, timeout).getStatus().name();
    }

    private LiveList open(RecommendForUserLiveHeader header, Media media) {
        RecommendForUserLiveHeader filled = header.toBuilder().setTenant(or(header.getTenant())).build();
        return new LiveList(calls.live(
                RecommenderGrpc.getRecommendForUserLiveMethod(), Requests.liveFor(filled, media), liveTimeout));
    }

    private String or(String given) {
        return given.isEmpty() ? tenant : given;
    }
}
