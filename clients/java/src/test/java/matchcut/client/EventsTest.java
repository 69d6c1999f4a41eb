package matchcut.client;

import java.util.Collections;
import java.util.Iterator;
import java.util.List;
import matchcut.v1.Event;
import matchcut.v1.RecordEventsResponse;
import matchcut.v1.StageTimes;

/** Events made ready. */
final class EventsTest {
    @Test
    void batchesHoldFiveHundred() {
        Iterator<Event> events = Collections.nCopies(1001, Event.getDefaultInstance()).iterator();
        Check.equal(500, Events.batch(events).size());
        Check.equal(500, Events.batch(events).size());
        Check.equal(1, Events.batch(events).size());
        Check.equal(List.of(), Events.batch(events));
    }

    @Test
    void whatCouldBeKeptTwiceGetsAnId() {
        Event bare = Event.newBuilder().setItemId("a").build();
        String first = Events.repeatable(bare).getEventId();
        Check.equal(32, first.length());
        Check.that(!first.equals(Events.repeatable(bare).getEventId()), "ids are random");
        Event timed = bare.toBuilder().setTimeUs(5).build();
        Check.equal(timed, Events.repeatable(timed)); // the server makes its id of what it says
        Check.equal(32, Events.named(timed).getEventId().length());
        Event named = bare.toBuilder().setEventId("7").build();
        Check.equal(named, Events.repeatable(named));
        Check.equal(named, Events.named(named));
    }

    @Test
    void resultsAddUp() {
        RecordEventsResponse one = RecordEventsResponse.newBuilder()
                .setRecorded(1)
                .setDuplicates(2)
                .setUnknownItems(3)
                .setExpired(4)
                .setTimes(StageTimes.newBuilder().setTotalUs(5))
                .build();
        RecordEventsResponse both = Events.sum(one, one);
        Check.equal(List.of(2L, 4L, 6L, 8L, 10L), List.of(
                both.getRecorded(), both.getDuplicates(), both.getUnknownItems(), both.getExpired(),
                both.getTimes().getTotalUs()));
    }
}
