package matchcut.client;

import io.grpc.Status;
import java.util.ArrayDeque;
import java.util.Deque;
import matchcut.v1.Event;
import matchcut.v1.EventKind;
import matchcut.v1.RecommendForUserLiveRequest;
import matchcut.v1.RecommendForUserResponse;

/**
 * A user's list that follows what the user does; of {@link Client#recommendLiveFor(String)}. Use it in a {@code try}
 * statement: closing it cancels the call, unless it has ended.
 *
 * <p>{@link #event} gives the lists that answer events, iterating all others. It is for one thread.
 */
public final class LiveList extends Replies<RecommendForUserResponse> {
    private static final int KEPT = 16; // lists that came while an event's was awaited

    private final Exchange<RecommendForUserLiveRequest, RecommendForUserResponse> exchange;
    private final Deque<RecommendForUserResponse> kept = new ArrayDeque<>();
    private RecommendForUserResponse newest;

    LiveList(Exchange<RecommendForUserLiveRequest, RecommendForUserResponse> exchange) {
        super(exchange);
        this.exchange = exchange;
    }

    /** The newest list; null before the first, for which live media has to come. */
    public RecommendForUserResponse newest() {
        return newest;
    }

    /** Tells that the user did this just now. */
    public RecommendForUserResponse event(String itemId, EventKind kind) {
        return event(Event.newBuilder().setItemId(itemId).setKind(kind).build());
    }

    /**
     * Tells what the user did and returns the list that answers it, by when the event is durable.
     *
     * <p>Lists that live media makes meanwhile are kept for whoever iterates; the oldest of many are left out.
     */
    public RecommendForUserResponse event(Event event) {
        Event named = Events.named(event);
        exchange.send(RecommendForUserLiveRequest.newBuilder().setEvent(named).build());
        RecommendForUserResponse list = following();
        while (!list.getEventId().equals(named.getEventId())) {
            if (kept.size() == KEPT) {
                kept.remove();
            }
            kept.add(list);
            list = following();
        }
        return list;
    }

    /** Ends the call and returns the last list; those before it that were not taken are left out. */
    public RecommendForUserResponse end() {
        exchange.finish();
        kept.clear();
        while (hasNext()) {
            next();
        }
        if (newest == null) {
            throw ended();
        }
        return newest;
    }

    /** Waits for the list that the call begins with. */
    void begin() {
        following();
    }

    @Override
    public boolean hasNext() {
        return !kept.isEmpty() || super.hasNext();
    }

    @Override
    public RecommendForUserResponse next() {
        return kept.isEmpty() ? super.next() : kept.remove();
    }

    @Override
    RecommendForUserResponse read() {
        RecommendForUserResponse list = super.read();
        newest = list == null ? newest : list;
        return list;
    }

    private RecommendForUserResponse following() {
        RecommendForUserResponse list = super.hasNext() ? super.next() : null;
        if (list == null) {
            throw ended();
        }
        return list;
    }

    private static MatchcutException ended() {
        return Errors.own(Status.Code.INTERNAL, "The call has ended; no more lists come.");
    }
}
