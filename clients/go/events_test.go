package matchcut

import (
	"fmt"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	v1 "matchcut/v1"
)

func TestEventsGoOutInBatches(t *testing.T) {
	var sizes []int
	ids := map[string]int{}
	client, _ := connect(t, &fake{record: func(request *v1.RecordEventsRequest) (*v1.RecordEventsResponse, error) {
		if request.Tenant != "ours" {
			return nil, status.Error(codes.InvalidArgument, request.Tenant)
		}
		sizes = append(sizes, len(request.Events))
		for _, event := range request.Events {
			ids[event.EventId]++
		}
		if len(sizes) == 2 {
			return nil, unavailable() // so it is sent again, with the same ids
		}
		return &v1.RecordEventsResponse{Recorded: int64(len(request.Events)), Duplicates: 1, UnknownItems: 2, Expired: 3}, nil
	}}, Options{Tenant: "ours"})
	events := make([]*v1.Event, 2*batch+1)
	for at := range events {
		events[at] = &v1.Event{UserId: "ann"}
	}
	events[0].EventId = "mine"
	events[1].TimeUs = 5 // from which the server makes an id
	told, err := client.Record(soon(t), events...)
	none(t, err)
	if got := fmt.Sprint(sizes); got != fmt.Sprint([]int{batch, batch, batch, 1}) {
		t.Error(got)
	}
	if told.Recorded != 2*batch+1 || told.Duplicates != 3 || told.UnknownItems != 6 || told.Expired != 9 {
		t.Error(told)
	}
	if len(ids) != 2*batch+1 || ids["mine"] != 1 || ids[""] != 1 {
		t.Errorf("%d ids", len(ids))
	}
	if events[2].EventId != "" {
		t.Error("the caller's event has been changed")
	}
}

func TestWhatWasRecordedBeforeAFailureIsTold(t *testing.T) {
	calls := 0
	client, _ := connect(t, &fake{record: func(request *v1.RecordEventsRequest) (*v1.RecordEventsResponse, error) {
		if calls++; calls == 2 {
			return nil, status.Error(codes.InvalidArgument, "no kind")
		}
		return &v1.RecordEventsResponse{Recorded: int64(len(request.Events))}, nil
	}}, Options{})
	told, err := client.Record(soon(t), make([]*v1.Event, batch+1)...)
	want(t, err, ErrInvalidInput)
	if told.Recorded != batch {
		t.Error(told)
	}
	calls = 0
	told, err = client.Record(soon(t))
	none(t, err)
	if calls != 0 || told.Recorded != 0 {
		t.Error(calls, told)
	}
}
