package matchcut

import (
	"context"
	"io"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	v1 "matchcut/v1"
)

const kept = 16 // lists that wait for Next; of more the oldest are left out

// Dialogue is a user's list that follows what the user does:
//
//	live, err := client.LiveFor(ctx, &v1.RecommendForUserLiveHeader{UserId: "ann"}, nil)
//	if err != nil {
//		return err
//	}
//	defer live.Close()
//	show(live.Latest())
//	list, err := live.Event(&v1.Event{ItemId: "bikes", Kind: v1.EventKind_EVENT_KIND_LIKE})
//
// Goroutines may share it. Lists are taken from the connection as they come, whether somebody asks for them or not.
type Dialogue struct {
	sending *sending
	over    chan struct{} // closed once the call has ended

	mutex   sync.Mutex
	changed *sync.Cond
	waiting map[string][]chan *v1.RecommendForUserResponse // of the events with an id, in the order of Event
	lists   []*v1.RecommendForUserResponse                 // those that answer no Event and were not taken
	list    *v1.RecommendForUserResponse
	latest  *v1.RecommendForUserResponse
	ended   bool
	err     error
}

// LiveFor begins a dialogue: Event tells what the user did and returns the list that answers it, Next gives all other
// lists. Media of interest meanwhile is optional, nil: none; its end is the end of the call. Without media LiveFor
// waits for the first list, which Latest returns and Next does not. The call has no timeout of the client's and is not
// tried again. It lasts until End, Close, or the end of the context.
func (c *Client) LiveFor(ctx context.Context, header *v1.RecommendForUserLiveHeader, media *Media) (*Dialogue, error) {
	whole := proto.Clone(own(c, header)).(*v1.RecommendForUserLiveHeader)
	out := outgoing{
		header: &v1.RecommendForUserLiveRequest{Message: &v1.RecommendForUserLiveRequest_Header{Header: whole}},
		chunk: func(chunk *v1.MediaChunk) proto.Message {
			return &v1.RecommendForUserLiveRequest{Message: &v1.RecommendForUserLiveRequest_Chunk{Chunk: chunk}}
		},
	}
	if media != nil {
		total, _, err := media.stat()
		if err != nil {
			return nil, err
		}
		whole.Media = media.header(whole.Media)
		out.media, out.meter = media, media.meter(total)
	}
	open := func(ctx context.Context) (grpc.ClientStream, error) { return c.recommender.RecommendForUserLive(ctx) }
	sending, err := begin(ctx, open, out)
	if err != nil {
		return nil, fromRPC(err)
	}
	d := &Dialogue{
		sending: sending,
		over:    make(chan struct{}),
		waiting: map[string][]chan *v1.RecommendForUserResponse{},
	}
	d.changed = sync.NewCond(&d.mutex)
	go d.receive()
	if media == nil && !d.Next() {
		return nil, d.whyOver()
	}
	return d, nil
}

// Event tells what the user did and returns the list that answers it, by when the event is durable. The event's user
// may be empty; without an id it gets a random one.
func (d *Dialogue) Event(event *v1.Event) (*v1.RecommendForUserResponse, error) {
	event = named(event)
	answer := make(chan *v1.RecommendForUserResponse, 1)
	d.mutex.Lock()
	d.waiting[event.EventId] = append(d.waiting[event.EventId], answer)
	d.mutex.Unlock()
	// Where it cannot be sent the call is about to end, if it has not.
	d.sending.send(&v1.RecommendForUserLiveRequest{Message: &v1.RecommendForUserLiveRequest_Event{Event: event}})
	select {
	case list := <-answer:
		return list, nil
	case <-d.over:
	}
	select {
	case list := <-answer: // it came just before the end
		return list, nil
	default:
		return nil, d.whyOver()
	}
}

// Next waits for the next list that answers no Event, which List then returns; false at the end, and where the call
// failed, see Err. Of more than 16 lists that wait the oldest are left out.
func (d *Dialogue) Next() bool {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	for len(d.lists) == 0 && !d.ended {
		d.changed.Wait()
	}
	if len(d.lists) == 0 {
		return false
	}
	d.list, d.lists = d.lists[0], d.lists[1:]
	return true
}

// List is the list that Next waited for.
func (d *Dialogue) List() *v1.RecommendForUserResponse {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	return d.list
}

// Latest is the newest list of all; nil before the first, for which live media has to come.
func (d *Dialogue) Latest() *v1.RecommendForUserResponse {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	return d.latest
}

// Err is why no more lists come; nil: the last has come, or more do.
func (d *Dialogue) Err() error {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	return d.err
}

// End ends the call and returns the last list. Media that has not been sent by then is left out.
func (d *Dialogue) End() (*v1.RecommendForUserResponse, error) {
	d.sending.mutex.Lock()
	if !d.sending.stopped {
		d.sending.finish(nil)
	}
	d.sending.mutex.Unlock()
	<-d.over
	if last := d.Latest(); last != nil && d.Err() == nil {
		return last, nil
	}
	return nil, d.whyOver()
}

// Close cancels the call unless it has ended.
func (d *Dialogue) Close() {
	d.sending.stop(nil)
	<-d.over
}

// receive takes the lists as they come and ends with the call.
func (d *Dialogue) receive() {
	defer close(d.over)
	for {
		list := &v1.RecommendForUserResponse{}
		err := d.sending.stream.RecvMsg(list)
		if err != nil {
			ended := d.sending.stop(err)
			d.mutex.Lock()
			defer d.mutex.Unlock()
			if d.ended = true; err != io.EOF {
				d.err = ended
			}
			d.changed.Broadcast()
			return
		}
		d.sort(list)
	}
}

// sort gives a list to whoever waits for it.
func (d *Dialogue) sort(list *v1.RecommendForUserResponse) {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	d.latest = list
	if answers := d.waiting[list.GetEventId()]; len(answers) > 0 {
		answers[0] <- list
		if d.waiting[list.GetEventId()] = answers[1:]; len(answers) == 1 {
			delete(d.waiting, list.GetEventId())
		}
		return
	}
	if d.lists = append(d.lists, list); len(d.lists) > kept {
		d.lists = d.lists[1:]
	}
	d.changed.Signal()
}

// whyOver is the error of a call that has ended where a list was expected.
func (d *Dialogue) whyOver() error {
	if err := d.Err(); err != nil {
		return err
	}
	return broken("the call has ended; no more lists come")
}
