package matchcut.client;

import io.grpc.Status;
import io.grpc.stub.ServerCallStreamObserver;
import io.grpc.stub.StreamObserver;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.NoSuchElementException;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.function.Consumer;
import java.util.stream.IntStream;
import java.util.stream.Stream;
import matchcut.v1.EventKind;
import matchcut.v1.Picture;
import matchcut.v1.RecommendForUserLiveHeader;
import matchcut.v1.RecommendForUserLiveRequest;
import matchcut.v1.RecommendForUserResponse;
import matchcut.v1.RecommendLiveRequest;
import matchcut.v1.RecommendRequest;
import matchcut.v1.RecommendResponse;
import matchcut.v1.RecommenderGrpc;

/** Calls that go on. */
final class LiveTest implements AutoCloseable {
    private final List<Object> messages = new CopyOnWriteArrayList<>();
    private final CountDownLatch cancelled = new CountDownLatch(1);
    private final FakeServer server = new FakeServer(new Recommender());
    private final Client client = server.client();

    /** Answers each message with a list, and the end with a last one. */
    private abstract class Answers<Q, R> implements StreamObserver<Q> {
        private final StreamObserver<R> replies;
        private int revision;

        Answers(StreamObserver<R> replies) {
            this.replies = replies;
            ((ServerCallStreamObserver<R>) replies).setOnCancelHandler(cancelled::countDown);
        }

        abstract R reply(Q message, int revision);

        @Override
        public void onNext(Q message) {
            messages.add(message);
            R reply = reply(message, ++revision);
            if (reply != null) {
                replies.onNext(reply);
            }
        }

        @Override
        public void onError(Throwable error) {}

        @Override
        public void onCompleted() {
            if (messages.toString().contains("never")) {
                return;
            }
            replies.onNext(reply(null, ++revision));
            replies.onCompleted();
        }
    }

    private final class Recommender extends RecommenderGrpc.RecommenderImplBase {
        @Override
        public void recommend(RecommendRequest request, StreamObserver<RecommendResponse> replies) {
            messages.add(request);
            replies.onNext(RecommendResponse.getDefaultInstance());
            replies.onCompleted();
        }

        @Override
        public StreamObserver<RecommendLiveRequest> recommendLive(StreamObserver<RecommendResponse> replies) {
            return new Answers<>(replies) {
                @Override
                RecommendResponse reply(RecommendLiveRequest message, int revision) {
                    return RecommendResponse.newBuilder().setRevision(revision).setFinal(message == null).build();
                }
            };
        }

        @Override
        public StreamObserver<RecommendForUserLiveRequest> recommendForUserLive(
                StreamObserver<RecommendForUserResponse> replies) {
            return new Answers<>(replies) {
                @Override
                RecommendForUserResponse reply(RecommendForUserLiveRequest message, int revision) {
                    if (message != null && message.hasHeader() && message.getHeader().hasMedia()) {
                        return null; // the first look at the media is answered
                    }
                    String answered = message == null ? "" : message.getEvent().getEventId();
                    return RecommendForUserResponse.newBuilder()
                            .setRevision(revision)
                            .setEventId(answered)
                            .setFinal(message == null)
                            .build();
                }
            };
        }
    }

    /** Does something to this thread from another, once this one waits. */
    private static void whenWaiting(Consumer<Thread> action) {
        Thread waiting = Thread.currentThread();
        new Thread(() -> {
            Check.soon(() -> waiting.getState() == Thread.State.WAITING, "it waits");
            action.accept(waiting);
        }).start();
    }

    private static Media pictures(int count) {
        return Media.pictures(IntStream.range(0, count)
                .mapToObj(at -> Media.picture(Duration.ofSeconds(at), new byte[] {1}))
                .toList());
    }

    private static Media endless() {
        Stream<Picture> pictures = Stream.iterate(0, at -> at + 1)
                .map(at -> Media.picture(Duration.ofSeconds(at), new byte[10_000]));
        return Media.pictures(pictures::iterator);
    }

    @Test
    void rankingsComeUntilTheEnd() {
        List<Long> revisions = new ArrayList<>();
        try (Replies<RecommendResponse> rankings = client.live(pictures(2))) {
            for (RecommendResponse ranking : rankings) {
                revisions.add(ranking.getRevision());
            }
            Check.thrown(NoSuchElementException.class, rankings::next);
        }
        Check.equal(List.of(1L, 2L, 3L, 4L), revisions);
    }

    @Test
    void leavingCancels() throws InterruptedException {
        try (Replies<RecommendResponse> rankings = client.live(endless())) {
            Check.equal(1L, rankings.next().getRevision());
        }
        Check.that(cancelled.await(5, TimeUnit.SECONDS), "the server is told");
        Thread.sleep(50);
        int now = messages.size();
        Thread.sleep(50);
        Check.equal(now, messages.size());
    }

    @Test
    void closingFromAnotherThreadCancelsWhateverTheMediaSays() {
        CountDownLatch never = new CountDownLatch(1);
        Stream<Picture> pictures = Stream.generate(() -> {
            try {
                never.await();
            } catch (InterruptedException error) {
                throw new IllegalStateException("the media was interrupted");
            }
            return Picture.getDefaultInstance();
        });
        Replies<RecommendResponse> rankings = client.live(Media.pictures(pictures::iterator));
        rankings.next();
        whenWaiting(reader -> rankings.close());
        Check.thrown(MatchcutException.Cancelled.class, rankings::hasNext);
        Check.equal(false, rankings.hasNext());
    }

    @Test
    void anInterruptCancels() throws InterruptedException {
        Media silent = Media.pictures(List.of());
        Replies<RecommendForUserResponse> lists = client.recommendLiveFor(
                RecommendForUserLiveHeader.newBuilder().setUserId("never").build(), silent);
        whenWaiting(Thread::interrupt);
        Check.thrown(MatchcutException.Cancelled.class, lists::hasNext);
        Check.that(Thread.interrupted(), "the interrupt is kept");
        Check.that(cancelled.await(5, TimeUnit.SECONDS), "the server is told");
    }

    @Test
    void aLiveCallHasOnlyItsOwnTimeout() {
        Client hurried = server.client(Client.to("").timeout(Duration.ofNanos(1)));
        Replies<RecommendResponse> rankings = hurried.live(pictures(1));
        rankings.forEachRemaining(ranking -> {});
        Replies<RecommendResponse> late = client.within(Duration.ofMillis(30)).live(endless());
        Check.thrown(MatchcutException.DeadlineExceeded.class, () -> late.forEachRemaining(ranking -> {}));
    }

    @Test
    void aSmallClipGoesInOneMessage() {
        client.recommend(Media.bytes(new byte[300_000]));
        RecommendRequest request = (RecommendRequest) messages.get(0);
        Check.equal(2, request.getQuery().getClip().getChunksCount());
        Check.equal("t", request.getTenant());
    }

    @Test
    void aLargeClipAndOneOfUnknownLengthGoLive() {
        RecommendResponse last = client.recommend(Media.bytes(new byte[8 * 1024 * 1024 + 1]));
        Check.equal(true, last.getFinal());
        Check.equal(34, messages.size());
        RecommendLiveRequest header = (RecommendLiveRequest) messages.get(0);
        Check.equal(Integer.MAX_VALUE, header.getHeader().getOptions().getFramesPerUpdate());
        messages.clear();
        Check.equal(true, client.recommend(Media.pieces(List.of(new byte[1]))).getFinal());
        Check.equal(2, messages.size());
    }

    @Test
    void eventsAreAnsweredByTheirLists() {
        try (LiveList live = client.recommendLiveFor("ann")) {
            Check.equal(1L, live.newest().getRevision());
            Check.equal(2L, live.event("a", EventKind.EVENT_KIND_LIKE).getRevision());
            Check.equal(3L, live.event("a", EventKind.EVENT_KIND_LIKE).getRevision());
            Check.equal(true, live.end().getFinal());
            MatchcutException error = Check.thrown(
                    MatchcutException.ServerError.class, () -> live.event("a", EventKind.EVENT_KIND_LIKE));
            Check.equal(Status.Code.INTERNAL, error.code());
        }
        var first = ((RecommendForUserLiveRequest) messages.get(1)).getEvent();
        var second = ((RecommendForUserLiveRequest) messages.get(2)).getEvent();
        Check.that(!first.getEventId().equals(second.getEventId()), "each has an id of its own");
        Check.equal(0L, first.getTimeUs());
    }

    @Test
    void listsOfTheMediaAreKeptForTheIteration() {
        RecommendForUserLiveHeader ann = RecommendForUserLiveHeader.newBuilder().setUserId("ann").build();
        CountDownLatch more = new CountDownLatch(1);
        Iterable<Picture> pictures = () -> Stream.of(0, 1, 2)
                .map(at -> {
                    if (at == 2) {
                        Check.soon(() -> more.getCount() == 0, "the event is answered");
                    }
                    return Media.picture(Duration.ofSeconds(at), new byte[] {1});
                })
                .iterator();
        try (LiveList live = client.recommendLiveFor(ann, Media.pictures(pictures))) {
            Check.soon(() -> messages.size() == 3, "two pictures are there");
            Check.equal(4L, live.event("a", EventKind.EVENT_KIND_CLICK).getRevision());
            more.countDown();
            List<Long> others = new ArrayList<>();
            live.forEachRemaining(list -> others.add(list.getRevision()));
            Check.equal(List.of(2L, 3L, 5L, 6L), others);
        }
    }

    @Test
    void aFirstListThatFailsIsThrown() {
        FakeServer other = new FakeServer(); // it has no such service
        MatchcutException error =
                Check.thrown(MatchcutException.ServerError.class, () -> other.client().recommendLiveFor("ann"));
        Check.equal(Status.Code.UNIMPLEMENTED, error.code());
        other.close();
    }

    @Override
    public void close() {
        server.close();
    }
}
