import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.OptionalLong;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import java.util.stream.Stream;
import matchcut.client.Client;
import matchcut.client.ClientBuilder;
import matchcut.client.LiveList;
import matchcut.client.MatchcutException;
import matchcut.client.Media;
import matchcut.client.Queries;
import matchcut.client.Replies;
import matchcut.client.Retry;
import matchcut.client.Times;
import matchcut.v1.*;

/**
 * A tour of matchcut in Java. Every client has this program, and each prints the same lines.
 *
 * <pre>
 *   tour build/media             the tour
 *   tour build/media restart     waits for a line, then asks a server that may be away
 * </pre>
 *
 * It finds the server as the command line does, but for the tenant, which is "tour" unless MATCHCUT_TENANT names
 * another: MATCHCUT_SERVER, MATCHCUT_TLS_CA, MATCHCUT_CLIENT_TOKEN_FILE.
 */
final class Tour {
    private static final Map<String, List<String>> TAGS = Map.of(
            "a", List.of("people"), "bikes", List.of("traffic", "outdoors"), "carphone", List.of("people", "traffic"));
    private static final Instant HOUR_AGO = Instant.now().minus(Duration.ofHours(1)); // when things happened

    private final Client client;
    private final Path media;

    private Tour(Client client, Path media) {
        this.client = client;
        this.media = media;
    }

    /** Connects, and takes the tour that the command line names. */
    public static void main(String[] args) throws IOException {
        Locale.setDefault(Locale.ROOT); // numbers with a point
        try (Client client = connect()) {
            Tour tour = new Tour(client, Path.of(args[0]));
            if (args.length > 1 && args[1].equals("restart")) {
                tour.restart();
            } else {
                tour.all();
            }
        }
    }

    /** A client that tries again for a good while, so that a server may be restarted. */
    private static Client connect() throws IOException {
        Map<String, String> env = System.getenv();
        ClientBuilder builder = Client.to(env.getOrDefault("MATCHCUT_SERVER", "127.0.0.1:7411"))
                .tenant(env.getOrDefault("MATCHCUT_TENANT", "tour"))
                .timeout(Duration.ofSeconds(60))
                .retry(Retry.of(30, Duration.ofMillis(200), Duration.ofSeconds(1)));
        if (env.containsKey("MATCHCUT_TLS_CA")) {
            builder.tls(Path.of(env.get("MATCHCUT_TLS_CA")));
        }
        if (env.containsKey("MATCHCUT_CLIENT_TOKEN_FILE")) {
            builder.token(Files.readString(Path.of(env.get("MATCHCUT_CLIENT_TOKEN_FILE"))).strip());
        }
        return builder.build();
    }

    /** Everything once. */
    private void all() throws IOException {
        say("health: %s", client.health());
        tidy();
        fill();
        look();
        ask();
        watch();
        follow();
        fail();
        stop();
        tidy();
        say("left: %d items", client.items().count());
    }

    /** Takes out what a tour puts in. */
    private void tidy() {
        for (String name : List.of("a", "bikes", "carphone", "twin")) {
            client.remove(RemoveItemRequest.newBuilder().setItemId(name).setAllowMissing(true).build());
        }
    }

    /** Items go in, with progress. */
    private void fill() {
        for (String name : List.of("a", "bikes", "carphone")) {
            List<Long> sent = new ArrayList<>();
            OptionalLong[] whole = {OptionalLong.empty()};
            Media clip = clip(name).progress((done, total) -> {
                sent.add(done);
                whole[0] = total;
            });
            Item item = Item.newBuilder()
                    .setItemId(name)
                    .setTitle("The clip " + name)
                    .addAllTags(TAGS.get(name))
                    .putAttributes("file", name + ".mp4")
                    .build();
            IngestResponse told = client.ingest(item, clip);
            boolean grew = IntStream.range(1, sent.size()).allMatch(at -> sent.get(at - 1) < sent.get(at));
            long most = sent.get(sent.size() - 1);
            say("%s: sent %d of %d bytes, %s", name, most, whole[0].orElse(-1), grew ? "growing" : "not growing");
            say("%s: %s", name, outcome(told));
        }
        Item item = Item.newBuilder().setItemId("bikes").setTitle("Bikes").addAllTags(TAGS.get("bikes")).build();
        IngestResponse again = client.ingest(item, clip("bikes"));
        say("bikes again: %s, titled %s", outcome(again), again.getItem().getTitle());
    }

    /** What an ingest did, in words. */
    private static String outcome(IngestResponse told) {
        String outcome = told.getOutcome().name().replace("INGEST_OUTCOME_", "");
        double seconds = told.getItem().getDurationUs() / 1e6;
        String words = String.format("%s, %d segments, %.2f s", outcome, told.getSegmentCount(), seconds);
        MediaReport report = told.getReport();
        return told.hasReport()
                ? String.format("%s, %s %d x %d", words, report.getCodec(), report.getWidth(), report.getHeight())
                : words;
    }

    /** What is in the catalogue, and an item from a vector of another's. */
    private void look() {
        GetItemResponse stored = client.get("carphone", true);
        Item item = stored.getItem();
        String tags = String.join(" ", item.getTagsList());
        say("carphone: %s, tags %s, file %s", item.getTitle(), tags, item.getAttributesOrThrow("file"));
        Segment first = stored.getSegments(0);
        TimeRange range = first.getRange();
        say("carphone: first segment %.2f to %.2f s, %d numbers",
                range.getStartUs() / 1e6, range.getEndUs() / 1e6, first.getVectorCount());
        Segment second = first.toBuilder().setRange(Times.range(Duration.ZERO, Duration.ofSeconds(1))).build();
        Item twin = Item.newBuilder().setItemId("twin").setTitle("A vector").build();
        say("twin: %s", outcome(client.ingestVectors(twin, List.of(second))));
        say("items: %s", ids(client.items(ListItemsRequest.newBuilder().setPageSize(2).build())));
        TagFilter filter = TagFilter.newBuilder().addAllOf("traffic").addNoneOf("people").build();
        say("traffic, not people: %s", ids(client.items(ListItemsRequest.newBuilder().setTags(filter).build())));
    }

    private static String ids(Stream<Item> items) {
        return items.map(Item::getItemId).collect(Collectors.joining(" "));
    }

    /** The catalogue is ranked against items, a vector and a clip. */
    private void ask() {
        Media distorted = clip("carphone_distorted");
        show("like bikes", client.recommend("bikes"));
        List<Float> vector = client.get("carphone", true).getSegments(0).getVectorList();
        show("like a vector", client.recommend(Queries.vector(vector), limit(2).build()));
        RankOptions others = RankOptions.newBuilder().addExcludeItemIds("twin").build();
        show("like a clip", client.recommend(distorted, others));
        TagFilter people = TagFilter.newBuilder().addAnyOf("people").build();
        show("like a clip, people only",
                client.recommend(distorted, RankOptions.newBuilder().setTags(people).build()));
    }

    /** Live media, and rankings that improve. */
    private void watch() throws IOException {
        RankOptions often = limit(2).setFramesPerUpdate(4).build();
        try (Replies<RecommendResponse> rankings = client.live(clip("bikes"), often)) {
            List<String> revisions = new ArrayList<>();
            rankings.forEach(ranking -> revisions.add(Long.toString(ranking.getRevision())));
            say("live container: %s", String.join(" ", revisions));
        }
        try (Replies<RecommendResponse> rankings = client.live(MadeFrames.first(9), often)) {
            for (RecommendResponse ranking : rankings) {
                show("live frames " + ranking.getRevision() + (ranking.getFinal() ? ", the last" : ""), ranking);
            }
        }
        List<Picture> pictures = List.of(
                Media.picture(Duration.ZERO, Files.readAllBytes(media.resolve("lion.jpg"))),
                Media.picture(Duration.ofSeconds(1), Files.readAllBytes(media.resolve("tower.jpg"))));
        try (Replies<RecommendResponse> rankings = client.live(Media.pictures(pictures))) {
            RecommendResponse last = null;
            for (RecommendResponse ranking : rankings) {
                last = ranking;
            }
            show("live pictures", last);
        }
    }

    /** What a user did, and what that user should see. */
    private void follow() {
        RecommendForUserRequest ann = RecommendForUserRequest.newBuilder().setUserId("ann").build();
        UserOptions seen = UserOptions.newBuilder().setIncludeSeen(true).build();
        show("nobody knows ann", client.recommendFor("ann"));
        List<Event> events = List.of(
                event("1", "bikes", EventKind.EVENT_KIND_LIKE, 0).setUserId("ann").build(),
                event("2", "a", EventKind.EVENT_KIND_WATCH, 60).setUserId("ann").setFraction(0.25).build(),
                event("3", "not-there-yet", EventKind.EVENT_KIND_CLICK, 120).setUserId("ann").build());
        for (String turn : List.of("first", "second")) {
            RecordEventsResponse told = client.record(events);
            say("%s time: %d new, %d known, %d of unknown items",
                    turn, told.getRecorded(), told.getDuplicates(), told.getUnknownItems());
        }
        show("for ann", client.recommendFor(ann.toBuilder().setUserOptions(seen).build()));
        show("for ann, unseen", client.recommendFor("ann"));
        Event liked = event("", "carphone", EventKind.EVENT_KIND_LIKE, 180).build();
        show("for a history", client.recommendFor(RecommendForUserRequest.newBuilder().addHistory(liked).build()));
        RecommendForUserLiveHeader header =
                RecommendForUserLiveHeader.newBuilder().setUserId("ann").setUserOptions(seen).build();
        try (LiveList live = client.recommendLiveFor(header)) {
            show("live for ann", live.newest());
            show("ann saves carphone", live.event(event("4", "carphone", EventKind.EVENT_KIND_SAVE, 180).build()));
            show("the end", live.end());
        }
        long forgotten = client.forget("ann").getEvents();
        say("ann forgotten: %d events; again: %d", forgotten, client.forget("ann").getEvents());
    }

    private static Event.Builder event(String id, String item, EventKind kind, int seconds) {
        long time = Times.micros(HOUR_AGO.plusSeconds(seconds));
        return Event.newBuilder().setEventId(id).setItemId(item).setKind(kind).setTimeUs(time);
    }

    /** What goes wrong comes as exceptions, with the server's words. */
    private void fail() {
        missed("an item that is not there", () -> client.get("nobody"));
        Item item = Item.newBuilder().setItemId("short").build();
        Segment tooShort = Segment.newBuilder().addAllVector(List.of(1f, 2f)).build();
        missed("a vector too short", () -> client.ingestVectors(item, List.of(tooShort)));
        byte[] text = "This is no video at all. ".repeat(100).getBytes();
        missed("no video", () -> client.ingest("text", Media.bytes(text)));
        missed("too many", () -> client.recommend(Queries.items("bikes"), limit(1001).build()));
        try {
            client.within(Duration.ofMillis(1)).recommend(clip("bikes"));
            say("no time: no error");
        } catch (MatchcutException error) {
            say("no time: %s", error.code());
        }
    }

    /** Prints the error of a call. */
    private static void missed(String what, Runnable call) {
        try {
            call.run();
            say("%s: no error", what);
        } catch (MatchcutException error) {
            String field = error.field().isEmpty() ? "-" : error.field();
            say("%s: %s %s %s %s", what, error.code(), error.reason(), field, error.getMessage());
        }
    }

    /** Calls that are given up leave nothing behind. */
    private void stop() throws IOException {
        RankOptions each = RankOptions.newBuilder().setFramesPerUpdate(1).build();
        try (Replies<RecommendResponse> rankings = client.live(MadeFrames.endless(), each)) {
            say("stopped after ranking %d", rankings.next().getRevision());
        }
        byte[] half = Arrays.copyOf(Files.readAllBytes(media.resolve("bikes.mp4")), 200_000);
        Stream<byte[]> pieces = Stream.concat(Stream.of(half), Stream.generate(() -> {
            throw new Enough();
        }));
        try {
            client.ingest("half", Media.pieces(pieces::iterator));
        } catch (Enough enough) {
            say("an upload given up");
        }
        try {
            client.get("half");
        } catch (MatchcutException.NotFound error) {
            say("half: not there");
        }
    }

    /** What a caller's own media throws. */
    private static final class Enough extends RuntimeException {
        private static final long serialVersionUID = 1;
    }

    /** Puts an item in, waits for a line on standard input, and asks for it: of a server that is being restarted. */
    private void restart() throws IOException {
        client.ingest("bikes", clip("bikes"));
        say("ready");
        while (System.in.read() > '\n') {
            // the rest of the line
        }
        ItemsQuery bikes = ItemsQuery.newBuilder().addItemIds("bikes").setIncludeThemselves(true).build();
        Query query = Query.newBuilder().setItems(bikes).build();
        show("after a restart", client.recommend(query, RankOptions.getDefaultInstance()));
        client.remove("bikes");
    }

    private Media clip(String name) {
        return Media.file(media.resolve(name + ".mp4"));
    }

    private static RankOptions.Builder limit(int items) {
        return RankOptions.newBuilder().setLimit(items);
    }

    /** One line for a ranking. */
    private static void show(String what, RecommendResponse ranking) {
        say("%s: %s", what, listed(ranking.getMatchesList().stream()
                .map(match -> String.format("%s %.3f", match.getItem().getItemId(), match.getScore()))));
    }

    /** One line for a user's list. */
    private static void show(String what, RecommendForUserResponse list) {
        String known = list.getCold() ? "cold" : list.getEvents() + " events";
        say("%s: %s; %s", what, known, listed(list.getMatchesList().stream().map(match -> {
            String nearest = match.getReason().getNearestItemId();
            return match.getItem().getItemId() + (nearest.isEmpty() ? "" : " (" + nearest + ")");
        })));
    }

    /** Words with commas. */
    private static String listed(Stream<String> words) {
        String all = words.collect(Collectors.joining(", "));
        return all.isEmpty() ? "nothing" : all;
    }

    private static void say(String line, Object... values) {
        System.out.println(String.format(line, values));
    }
}
