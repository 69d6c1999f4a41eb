package matchcut

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	v1 "matchcut/v1"
)

// answering sends a first list, then for each event some lists of its own accord and one that answers it, and at the
// end a last one. "odd" ends the call.
func answering(unasked int) func(v1.Recommender_RecommendForUserLiveServer) error {
	return func(stream v1.Recommender_RecommendForUserLiveServer) error {
		revision := int64(0)
		send := func(list *v1.RecommendForUserResponse) error {
			revision++
			list.Revision = revision
			return stream.Send(list)
		}
		for {
			request, err := stream.Recv()
			if err == io.EOF {
				return send(&v1.RecommendForUserResponse{Final: true})
			}
			if err != nil {
				return err
			}
			if request.GetHeader() != nil && request.GetHeader().Media == nil {
				err = send(&v1.RecommendForUserResponse{RecommendationId: request.GetHeader().Tenant})
			}
			if event := request.GetEvent(); event != nil {
				if event.ItemId == "odd" {
					return status.Error(codes.InvalidArgument, "odd")
				}
				for i := 0; i < unasked; i++ {
					send(&v1.RecommendForUserResponse{})
				}
				err = send(&v1.RecommendForUserResponse{EventId: event.EventId, RecommendationId: event.ItemId})
			}
			if err != nil {
				return err
			}
		}
	}
}

func header() *v1.RecommendForUserLiveHeader {
	return &v1.RecommendForUserLiveHeader{UserId: "ann"}
}

func TestDialogue(t *testing.T) {
	client, _ := connect(t, &fake{userLive: answering(2)}, Options{Tenant: "ours"})
	live, err := client.LiveFor(soon(t), header(), nil)
	none(t, err)
	defer live.Close()
	if first := live.Latest(); first.Revision != 1 || first.RecommendationId != "ours" {
		t.Error(first)
	}
	event := &v1.Event{ItemId: "a"}
	list, err := live.Event(event)
	none(t, err)
	if list.Revision != 4 || list.RecommendationId != "a" || event.EventId != "" {
		t.Error(list, event)
	}
	list, err = live.Event(&v1.Event{ItemId: "b", EventId: "named"})
	none(t, err)
	if list.Revision != 7 || list.EventId != "named" || live.Latest() != list {
		t.Error(list)
	}
	last, err := live.End()
	none(t, err)
	if !last.Final || last.Revision != 8 {
		t.Error(last)
	}
	var revisions []int64
	for live.Next() {
		revisions = append(revisions, live.List().Revision)
	}
	if got := fmt.Sprint(revisions); got != "[2 3 5 6 8]" || live.Err() != nil {
		t.Error(got, live.Err())
	}
	_, err = live.Event(&v1.Event{ItemId: "late"})
	want(t, err, ErrServer)
	again, err := live.End()
	if none(t, err); again != last {
		t.Error(again)
	}
}

func TestGoroutinesShareADialogue(t *testing.T) {
	client, _ := connect(t, &fake{userLive: answering(1)}, Options{})
	live, err := client.LiveFor(soon(t), header(), nil)
	none(t, err)
	defer live.Close()
	var group sync.WaitGroup
	for at := 0; at < 40; at++ {
		group.Add(1)
		go func(name string) {
			defer group.Done()
			id := ""
			if name < "3" {
				id = "the same" // answered in the order of their being told, so each gets one
			}
			list, err := live.Event(&v1.Event{ItemId: name, EventId: id})
			if err != nil || id == "" && list.RecommendationId != name {
				t.Errorf("%s: %v, %v", name, list, err)
			}
		}(fmt.Sprint(at))
	}
	group.Wait()
	lists := 0
	_, err = live.End()
	none(t, err)
	for live.Next() {
		lists++
	}
	if lists != kept { // of 40 and the last
		t.Errorf("%d lists are kept", lists)
	}
}

func TestADialogueThatFails(t *testing.T) {
	client, _ := connect(t, &fake{userLive: answering(0)}, Options{})
	live, err := client.LiveFor(soon(t), header(), nil)
	none(t, err)
	_, err = live.Event(&v1.Event{ItemId: "odd"})
	want(t, err, ErrInvalidInput)
	_, err = live.End()
	want(t, err, ErrInvalidInput)
	if live.Next() {
		t.Error(live.List())
	}
	want(t, live.Err(), ErrInvalidInput)
	live.Close()

	live, err = client.LiveFor(soon(t), header(), nil)
	none(t, err)
	live.Close()
	_, err = live.Event(&v1.Event{ItemId: "a"})
	want(t, err, ErrCancelled)
}

func TestADialogueThatCannotBegin(t *testing.T) {
	client, _ := connect(t, &fake{userLive: func(v1.Recommender_RecommendForUserLiveServer) error {
		return status.Error(codes.PermissionDenied, "users are off")
	}}, Options{})
	_, err := client.LiveFor(soon(t), header(), nil)
	want(t, err, ErrNotAllowed)
	_, err = client.LiveFor(soon(t), header(), File("/there/is/none"))
	if err == nil {
		t.Error("no error")
	}
}

func TestADialogueWithMedia(t *testing.T) {
	client, _ := connect(t, &fake{userLive: answering(0)}, Options{})
	source := newBlocked("some")
	defer close(source.free)
	live, err := client.LiveFor(soon(t), header(), Reader(source))
	none(t, err)
	if live.Latest() != nil {
		t.Error(live.Latest())
	}
	<-source.inside
	list, err := live.Event(&v1.Event{ItemId: "a"}) // although the reader waits
	none(t, err)
	if list.RecommendationId != "a" {
		t.Error(list)
	}
	last, err := live.End()
	if none(t, err); !last.Final {
		t.Error(last)
	}
	live.Close()

	live, err = client.LiveFor(soon(t), header(), Reader(strings.NewReader("all")))
	none(t, err)
	for live.Next() { // the media's end is the end of the call
	}
	none(t, live.Err())
	if !live.Latest().Final {
		t.Error(live.Latest())
	}
	live.Close()

	broken := errors.New("broken")
	live, err = client.LiveFor(soon(t), header(), Pictures(func() (*v1.Picture, error) { return nil, broken }))
	none(t, err)
	for live.Next() {
	}
	if live.Err() != broken {
		t.Error(live.Err())
	}
	live.Close()
}

func TestProgressMayUseADialogue(t *testing.T) {
	client, _ := connect(t, &fake{userLive: answering(0)}, Options{})
	for name, use := range map[string]func(*testing.T, *Dialogue){
		"event and end": func(t *testing.T, live *Dialogue) {
			list, err := live.Event(&v1.Event{ItemId: "a"})
			if err != nil || list.RecommendationId != "a" {
				t.Error(list, err)
			}
			if last, err := live.End(); err != nil || !last.Final {
				t.Error(last, err)
			}
		},
		"close": func(t *testing.T, live *Dialogue) {
			live.Close()
			if err := live.Err(); !errors.Is(err, ErrCancelled) {
				t.Error(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			var live *Dialogue
			made, used := make(chan struct{}), make(chan struct{})
			media := Reader(strings.NewReader("all"))
			media.Progress = func(int64, int64) {
				<-made
				use(t, live)
				close(used)
			}
			var err error
			live, err = client.LiveFor(soon(t), header(), media)
			none(t, err)
			close(made)
			wait(t, used)
			live.Close()
		})
	}
}
