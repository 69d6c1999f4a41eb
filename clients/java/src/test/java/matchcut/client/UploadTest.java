package matchcut.client;

import com.google.protobuf.ByteString;
import io.grpc.Deadline;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.stub.ServerCallStreamObserver;
import io.grpc.stub.StreamObserver;
import java.io.ByteArrayInputStream;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Iterator;
import java.util.List;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.stream.Stream;
import matchcut.v1.CatalogGrpc;
import matchcut.v1.IngestHeader;
import matchcut.v1.IngestOutcome;
import matchcut.v1.IngestRequest;
import matchcut.v1.IngestResponse;
import matchcut.v1.MediaHeader;

/** Media that goes in. */
final class UploadTest implements AutoCloseable {
    private static final IngestResponse UNCHANGED =
            IngestResponse.newBuilder().setOutcome(IngestOutcome.INGEST_OUTCOME_UNCHANGED).build();

    private final List<List<IngestRequest>> calls = new CopyOnWriteArrayList<>();
    private final List<Object> early = new CopyOnWriteArrayList<>(); // one a call: what answers its header
    private final List<StatusRuntimeException> late = new CopyOnWriteArrayList<>(); // one a call: what answers its end
    private final CountDownLatch cancelled = new CountDownLatch(1);
    private volatile boolean stuck; // the server takes the header and nothing more
    private final FakeServer server = new FakeServer(new Catalog());
    private final Client client = server.client().within(Duration.ofSeconds(20)); // so that nothing waits for ever

    private final class Catalog extends CatalogGrpc.CatalogImplBase {
        @Override
        public StreamObserver<IngestRequest> ingest(StreamObserver<IngestResponse> replies) {
            List<IngestRequest> messages = new CopyOnWriteArrayList<>();
            calls.add(messages);
            var call = (ServerCallStreamObserver<IngestResponse>) replies;
            call.setOnCancelHandler(cancelled::countDown);
            if (stuck) {
                call.disableAutoRequest();
                call.request(1);
            }
            return new StreamObserver<>() {
                @Override
                public void onNext(IngestRequest message) {
                    messages.add(message);
                    Object answer = message.hasHeader() && !early.isEmpty() ? early.remove(0) : null;
                    if (answer instanceof StatusRuntimeException error) {
                        replies.onError(error);
                    } else if (answer != null) {
                        replies.onNext((IngestResponse) answer);
                        replies.onCompleted();
                    }
                }

                @Override
                public void onError(Throwable error) {}

                @Override
                public void onCompleted() {
                    if (!late.isEmpty()) {
                        replies.onError(late.remove(0));
                    } else if (!messages.get(0).getHeader().getItem().getItemId().equals("never")) {
                        replies.onNext(IngestResponse.getDefaultInstance());
                        replies.onCompleted();
                    }
                }
            };
        }
    }

    /** Pieces without an end, and how many were taken. */
    private static final class Endless implements Iterable<byte[]> {
        final AtomicInteger taken = new AtomicInteger();

        @Override
        public Iterator<byte[]> iterator() {
            return Stream.generate(() -> {
                        taken.incrementAndGet();
                        return new byte[Media.CHUNK];
                    })
                    .iterator();
        }
    }

    @Test
    void aContainerIsSentWhole() {
        byte[] data = MediaTest.bytes(600_000);
        List<Long> told = new ArrayList<>();
        client.ingest("a", Media.bytes(data).format("mp4").progress((sent, total) -> {
            told.add(sent);
            Check.equal(600_000L, total.getAsLong());
        }));
        List<IngestRequest> messages = calls.get(0);
        IngestHeader header = messages.get(0).getHeader();
        Check.equal("t", header.getTenant());
        Check.equal("mp4", header.getMedia().getContainer().getFormat());
        Check.equal(32, header.getContentSha256().size());
        ByteString whole = ByteString.EMPTY;
        for (IngestRequest message : messages) {
            whole = whole.concat(message.getChunk().getData());
        }
        Check.equal(ByteString.copyFrom(data), whole);
        Check.that(messages.get(messages.size() - 1).hasEnd(), "the end is told");
        Check.equal(5, messages.size());
        Check.equal(List.of(262_144L, 524_288L, 600_000L), told);
    }

    @Test
    void aStreamHasNoDigestAndNoTotal() {
        client.ingest("a", Media.stream(new ByteArrayInputStream(new byte[10])).progress((sent, total) -> {
            Check.that(total.isEmpty(), "the length is not known");
        }));
        Check.equal(ByteString.EMPTY, calls.get(0).get(0).getHeader().getContentSha256());
        Check.that(calls.get(0).get(2).hasEnd(), "the end is told");
    }

    @Test
    void theHeadersWishesAreKept() {
        IngestHeader header = IngestHeader.newBuilder().setTenant("u").setForNextEncoder(true).build();
        client.ingest(header, Media.bytes(new byte[1]).readAs(MediaHeader.getDefaultInstance()));
        Check.equal("u", calls.get(0).get(0).getHeader().getTenant());
        Check.equal(true, calls.get(0).get(0).getHeader().getForNextEncoder());
    }

    @Test
    void aSourceThatFailsCancels() throws InterruptedException {
        Deadline soon = Deadline.after(15, TimeUnit.SECONDS);
        IllegalStateException mine = new IllegalStateException("no more");
        Iterator<byte[]> pieces = new Iterator<>() {
            private int given;

            @Override
            public boolean hasNext() {
                return true;
            }

            @Override
            public byte[] next() {
                if (given++ == 2) {
                    throw mine;
                }
                return new byte[100];
            }
        };
        RuntimeException error =
                Check.thrown(IllegalStateException.class, () -> client.ingest("a", Media.pieces(() -> pieces)));
        Check.that(error == mine, "it is thrown as it is");
        Check.that(!soon.isExpired(), "the call did not wait for its deadline");
        cancelled.await();
        Check.that(calls.get(0).stream().noneMatch(IngestRequest::hasEnd), "no end was told");
    }

    @Test
    void progressThatFailsCancels() throws InterruptedException {
        Media media = Media.bytes(new byte[10]).progress((sent, total) -> {
            throw new IllegalStateException("the window is closed");
        });
        Check.thrown(IllegalStateException.class, () -> client.ingest("a", media));
        cancelled.await();
    }

    @Test
    void anEarlyAnswerEndsTheUpload() {
        Endless pieces = new Endless();
        early.add(UNCHANGED);
        Check.equal(UNCHANGED, client.ingest("a", Media.pieces(pieces)));
        early.add(FakeServer.error(Status.INVALID_ARGUMENT.withDescription("no video"), "UNREADABLE_MEDIA"));
        MatchcutException error =
                Check.thrown(MatchcutException.InvalidInput.class, () -> client.ingest("a", Media.pieces(pieces)));
        Check.equal("no video", error.getMessage());
        Check.soon(UploadTest::nobodySends, "the sending threads end");
    }

    @Test
    void anEarlyAnswerDoesNotWaitForTheSource() {
        early.add(UNCHANGED);
        CountDownLatch never = new CountDownLatch(1);
        Iterable<byte[]> pieces = () -> Stream.generate(() -> {
                    try {
                        never.await();
                    } catch (InterruptedException error) {
                        throw new IllegalStateException(error);
                    }
                    return new byte[1];
                })
                .iterator();
        Check.equal(UNCHANGED, client.ingest("a", Media.pieces(pieces)));
        Check.soon(UploadTest::nobodySends, "a source that heeds interrupts ends");
    }

    @Test
    void aServerThatDoesNotReadIsWaitedFor() throws InterruptedException {
        stuck = true;
        Endless pieces = new Endless();
        Thread caller = new Thread(() -> Check.thrown(
                MatchcutException.Cancelled.class, () -> client.ingest("a", Media.pieces(pieces))));
        caller.start();
        Check.soon(() -> calls.size() == 1 && calls.get(0).size() == 1, "the header is there");
        Thread.sleep(100);
        Check.that(pieces.taken.get() <= 3, "only so much is read: " + pieces.taken.get());
        caller.interrupt();
        caller.join();
        cancelled.await();
        Check.soon(UploadTest::nobodySends, "the sending thread ends");
    }

    @Test
    void whatCanBeReadTwiceIsSentAgain() {
        late.add(FakeServer.error(Status.UNAVAILABLE, "SHUTTING_DOWN"));
        early.add(FakeServer.error(Status.UNAVAILABLE, "SHUTTING_DOWN")); // it is the first call's
        List<Long> told = new ArrayList<>();
        client.ingest("a", Media.bytes(new byte[300_000]).progress((sent, total) -> told.add(sent)));
        Check.equal(3, calls.size());
        Check.equal(calls.get(0).get(0), calls.get(2).get(0));
        Check.equal(4, calls.get(1).size());
        Check.equal(calls.get(1), calls.get(2));
        Check.equal(List.of(262_144L, 300_000L), told);
    }

    @Test
    void aStreamIsNotSentAgain() {
        early.add(FakeServer.error(Status.UNAVAILABLE, "SHUTTING_DOWN"));
        Media media = Media.stream(new ByteArrayInputStream(new byte[10]));
        Check.thrown(MatchcutException.Unavailable.class, () -> client.ingest("a", media));
        Check.equal(1, calls.size());
    }

    @Test
    void closingTheClientEndsAnUpload() {
        new Thread(() -> {
            Check.soon(() -> calls.size() == 1 && calls.get(0).size() == 3, "all is there");
            client.close();
        }).start();
        Check.thrown(MatchcutException.Cancelled.class, () -> client.ingest("never", Media.bytes(new byte[1])));
    }

    private static boolean nobodySends() {
        return Thread.getAllStackTraces().keySet().stream()
                .noneMatch(thread -> thread.getName().equals("matchcut-send"));
    }

    @Override
    public void close() {
        server.close();
    }
}
