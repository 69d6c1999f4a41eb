package matchcut.client;

import io.grpc.Context;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.stub.StreamObserver;
import java.time.Duration;
import java.time.temporal.ChronoUnit;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicReference;
import matchcut.client.wire.HealthGrpc;
import matchcut.client.wire.HealthProto.HealthCheckRequest;
import matchcut.client.wire.HealthProto.HealthCheckResponse;
import matchcut.v1.CatalogGrpc;
import matchcut.v1.Event;
import matchcut.v1.EventsGrpc;
import matchcut.v1.GetItemRequest;
import matchcut.v1.GetItemResponse;
import matchcut.v1.Item;
import matchcut.v1.RecordEventsRequest;
import matchcut.v1.RecordEventsResponse;
import matchcut.v1.RemoveItemRequest;
import matchcut.v1.RemoveItemResponse;

/** Calls of one message each way. */
final class UnaryTest implements AutoCloseable {
    private final List<StatusRuntimeException> failures = new CopyOnWriteArrayList<>(); // one a call, then it works
    private final List<Object> requests = new CopyOnWriteArrayList<>();
    private final CountDownLatch cancelled = new CountDownLatch(1);
    private volatile boolean silent;
    private final FakeServer server = new FakeServer(new Catalog(), new Events(), new Health());
    private final Client client = server.client().within(Duration.ofSeconds(5)); // so that nothing waits for ever

    private <R> void answer(Object request, StreamObserver<R> replies, R reply) {
        requests.add(request);
        if (silent) {
            Context.current().addListener(context -> cancelled.countDown(), Runnable::run);
        } else if (!failures.isEmpty()) {
            replies.onError(failures.remove(0));
        } else {
            replies.onNext(reply);
            replies.onCompleted();
        }
    }

    private final class Catalog extends CatalogGrpc.CatalogImplBase {
        @Override
        public void getItem(GetItemRequest request, StreamObserver<GetItemResponse> replies) {
            Item item = Item.newBuilder().setItemId(request.getItemId()).setTitle(request.getTenant()).build();
            answer(request, replies, GetItemResponse.newBuilder().setItem(item).build());
        }

        @Override
        public void removeItem(RemoveItemRequest request, StreamObserver<RemoveItemResponse> replies) {
            answer(request, replies, RemoveItemResponse.getDefaultInstance());
        }
    }

    private final class Events extends EventsGrpc.EventsImplBase {
        @Override
        public void recordEvents(RecordEventsRequest request, StreamObserver<RecordEventsResponse> replies) {
            RecordEventsResponse all = RecordEventsResponse.newBuilder().setRecorded(request.getEventsCount()).build();
            answer(request, replies, all);
        }
    }

    private final class Health extends HealthGrpc.HealthImplBase {
        @Override
        public void check(HealthCheckRequest request, StreamObserver<HealthCheckResponse> replies) {
            answer(request, replies, HealthCheckResponse.newBuilder().setStatusValue(1).build());
        }
    }

    private static StatusRuntimeException away() {
        return FakeServer.error(Status.UNAVAILABLE, "DEVICE_LOST");
    }

    private static StatusRuntimeException full() {
        var delay = ErrorsTest.retry(Duration.ofMillis(2));
        return new StatusRuntimeException(Status.RESOURCE_EXHAUSTED, ErrorsTest.trailers(Map.of("RetryInfo", delay)));
    }

    @Test
    void aTimeoutBeyondAllMeasureIsNoFault() {
        for (Duration ever : List.of(ChronoUnit.FOREVER.getDuration(), Duration.ofDays(365_250))) {
            failures.add(away()); // so that the second try has what is left of it
            Check.equal("a", client.within(ever).get("a").getItem().getItemId());
            Client other = server.client(Client.to("").timeout(ever));
            Check.equal("a", other.get("a").getItem().getItemId());
        }
        Check.equal(6, requests.size());
    }

    @Test
    void anEmptyTokenIsNone() {
        server.client(Client.to("").token("")).get("a");
        Check.that(!server.headers.get(0).containsKey(FakeServer.AUTHORIZATION), "no header");
    }

    @Test
    void tenantAndTokenAreSent() {
        Client other = server.client(Client.to("").tenant("t").token("secret"));
        Check.equal("t", other.get("a").getItem().getTitle());
        Check.equal("u", other.tenant("u").get("a").getItem().getTitle());
        Check.equal("Bearer secret", server.headers.get(0).get(FakeServer.AUTHORIZATION));
        client.get("a");
        Check.equal(null, server.headers.get(2).get(FakeServer.AUTHORIZATION));
        Check.equal("SERVING", client.health());
    }

    @Test
    void readsAreSentAgain() {
        failures.addAll(List.of(away(), full(), away()));
        Check.equal("a", client.get("a").getItem().getItemId());
        Check.equal(4, requests.size());
    }

    @Test
    void theLastErrorIsThrown() {
        failures.addAll(List.of(away(), away(), away(), away()));
        MatchcutException error = Check.thrown(MatchcutException.Unavailable.class, () -> client.get("a"));
        Check.equal("DEVICE_LOST", error.reason());
        Check.equal(4, requests.size());
    }

    @Test
    void removalsAreSentAgainOnlyWhenRefused() {
        failures.addAll(List.of(full(), away()));
        Check.thrown(MatchcutException.Unavailable.class, () -> client.remove("a"));
        Check.equal(2, requests.size());
    }

    @Test
    void eventsKeepTheirIdsWhenSentAgain() {
        failures.add(away());
        List<Long> told = new ArrayList<>();
        List<Event> events = Collections.nCopies(501, Event.getDefaultInstance());
        long recorded = client.record(events, soFar -> told.add(soFar.getRecorded())).getRecorded();
        Check.equal(501L, recorded);
        Check.equal(List.of(500L, 501L), told);
        Check.equal(requests.get(0), requests.get(1));
        Check.equal(3, requests.size());
    }

    @Test
    void noEventsAreNoCall() {
        Check.equal(0L, client.record().getRecorded());
        Check.equal(0, requests.size());
    }

    @Test
    void theTimeoutEndsACall() throws InterruptedException {
        silent = true;
        Client hurried = client.within(Duration.ofMillis(50));
        Check.thrown(MatchcutException.DeadlineExceeded.class, () -> hurried.get("a"));
        cancelled.await();
    }

    @Test
    void anInterruptCancelsACall() throws InterruptedException {
        silent = true;
        AtomicReference<Throwable> thrown = new AtomicReference<>();
        Thread caller = new Thread(() -> {
            thrown.set(Check.thrown(MatchcutException.Cancelled.class, () -> client.get("a")));
            Check.that(Thread.currentThread().isInterrupted(), "the interrupt is kept");
        });
        caller.start();
        Check.soon(() -> requests.size() == 1, "the call is there");
        caller.interrupt();
        caller.join();
        Check.that(thrown.get() != null, "it was cancelled");
        cancelled.await();
    }

    @Test
    void aCancelledContextCancelsACall() {
        silent = true;
        Context.CancellableContext context = Context.current().withCancellation();
        new Thread(() -> {
            Check.soon(() -> requests.size() == 1, "the call is there");
            context.cancel(null);
        }).start();
        context.run(() -> Check.thrown(MatchcutException.Cancelled.class, () -> client.get("a")));
    }

    @Test
    void closingEndsCallsAndRefusesMore() {
        silent = true;
        new Thread(() -> {
            Check.soon(() -> requests.size() == 1, "the call is there");
            client.close();
        }).start();
        Check.thrown(MatchcutException.Cancelled.class, () -> client.get("a"));
        Check.equal(1, requests.size());
        Check.thrown(IllegalStateException.class, () -> client.get("a"));
    }

    @Test
    void aCertificateNeedsTls() {
        var path = java.nio.file.Path.of("none.pem");
        Check.thrown(IllegalArgumentException.class, () -> Client.to("x:1").certificate(path, path).build());
        Check.thrown(java.io.UncheckedIOException.class, () -> Client.to("x:1").tls(path).build());
    }

    @Override
    public void close() {
        server.close();
    }
}
