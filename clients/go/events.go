package matchcut

import (
	"context"
	"crypto/rand"
	"encoding/hex"

	"google.golang.org/protobuf/proto"

	v1 "matchcut/v1"
)

const batch = 500 // events a call

// Record records events of users. They go out in calls of 500, each durable when it is answered; the numbers returned
// are of all that were answered, also where one failed. All events may be recorded again: what is there already changes
// nothing. An event without id and time is sent with a random id, so that a try again counts it once.
func (c *Client) Record(ctx context.Context, events ...*v1.Event) (*v1.RecordEventsResponse, error) {
	sum := &v1.RecordEventsResponse{}
	for len(events) > 0 {
		some := events[:min(len(events), batch)]
		events = events[len(some):]
		request := &v1.RecordEventsRequest{Tenant: c.tenant, Events: make([]*v1.Event, len(some))}
		for at, event := range some {
			if event.GetTimeUs() == 0 { // else the server makes an id that is the same each time
				event = named(event)
			}
			request.Events[at] = event
		}
		reply, err := unary(ctx, c, read, c.events.RecordEvents, request)
		if err != nil {
			return sum, err
		}
		sum.Recorded += reply.GetRecorded()
		sum.Duplicates += reply.GetDuplicates()
		sum.UnknownItems += reply.GetUnknownItems()
		sum.Expired += reply.GetExpired()
	}
	return sum, nil
}

// Forget deletes all that the server keeps of a user. Counts of 0 tell that there was nothing.
func (c *Client) Forget(ctx context.Context, userID string) (*v1.ForgetUserResponse, error) {
	return unary(ctx, c, refused, c.events.ForgetUser, &v1.ForgetUserRequest{Tenant: c.tenant, UserId: userID})
}

// CountEvents returns how many users did what with items.
func (c *Client) CountEvents(ctx context.Context, request *v1.CountEventsRequest) (*v1.CountEventsResponse, error) {
	return unary(ctx, c, read, c.events.CountEvents, own(c, request))
}

// named is the event with an id: a copy with a random one where it has none.
func named(event *v1.Event) *v1.Event {
	if event.GetEventId() != "" {
		return event
	}
	var random [16]byte
	if _, err := rand.Read(random[:]); err != nil {
		panic("matchcut: the system has no random numbers: " + err.Error())
	}
	copied := &v1.Event{}
	proto.Merge(copied, event)
	copied.EventId = hex.EncodeToString(random[:])
	return copied
}
