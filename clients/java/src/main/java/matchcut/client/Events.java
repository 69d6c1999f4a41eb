package matchcut.client;

import java.util.ArrayList;
import java.util.Iterator;
import java.util.List;
import java.util.UUID;
import matchcut.v1.Event;
import matchcut.v1.RecordEventsResponse;
import matchcut.v1.StageTimes;

/** Events made ready to be sent, and what becomes of them added up. */
final class Events {
    static final int BATCH = 500; // events a call

    private Events() {}

    /** The event with an id. */
    static Event named(Event event) {
        String random = UUID.randomUUID().toString().replace("-", "");
        return event.getEventId().isEmpty() ? event.toBuilder().setEventId(random).build() : event;
    }

    /** The event so that it is the same when sent again: without a time, the server's id would be of each try's. */
    static Event repeatable(Event event) {
        return event.getTimeUs() == 0 ? named(event) : event;
    }

    /** The next events, at most as many as one call takes; empty at the end. */
    static List<Event> batch(Iterator<Event> events) {
        List<Event> batch = new ArrayList<>();
        while (batch.size() < BATCH && events.hasNext()) {
            batch.add(repeatable(events.next()));
        }
        return batch;
    }

    /** What became of both. */
    static RecordEventsResponse sum(RecordEventsResponse some, RecordEventsResponse more) {
        return RecordEventsResponse.newBuilder()
                .setRecorded(some.getRecorded() + more.getRecorded())
                .setDuplicates(some.getDuplicates() + more.getDuplicates())
                .setUnknownItems(some.getUnknownItems() + more.getUnknownItems())
                .setExpired(some.getExpired() + more.getExpired())
                .setTimes(StageTimes.newBuilder()
                        .setTotalUs(some.getTimes().getTotalUs() + more.getTimes().getTotalUs()))
                .build();
    }
}
