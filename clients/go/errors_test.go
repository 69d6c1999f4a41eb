package matchcut

import (
	"context"
	"errors"
	"io"
	"math"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/runtime/protoiface"
	"google.golang.org/protobuf/types/known/durationpb"

	v1 "matchcut/v1"
)

func retryAfter(pause time.Duration) protoiface.MessageV1 {
	return &errdetails.RetryInfo{RetryDelay: durationpb.New(pause)}
}

// detailed is a status as a server sends it.
func detailed(t *testing.T, code codes.Code, details ...protoiface.MessageV1) error {
	t.Helper()
	whole, err := status.New(code, "do this").WithDetails(details...)
	none(t, err)
	return whole.Err()
}

func TestAnErrorHasWhatTheServerSaid(t *testing.T) {
	client, _ := connect(t, &fake{get: func(context.Context, *v1.GetItemRequest) (*v1.GetItemResponse, error) {
		field := &errdetails.BadRequest_FieldViolation{Field: "item.item_id"}
		return nil, detailed(t, codes.InvalidArgument,
			&errdetails.QuotaFailure{}, // which this client does not look at
			&errdetails.ErrorInfo{Reason: "ITEM_ID"},
			&errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{field}},
			retryAfter(1500*time.Millisecond))
	}}, Options{})
	_, err := client.Get(soon(t), nil)
	var failed *Error
	if !errors.As(err, &failed) {
		t.Fatalf("%T %v", err, err)
	}
	if failed.Code != codes.InvalidArgument || failed.Message != "do this" || failed.Reason != "ITEM_ID" ||
		failed.Field != "item.item_id" || failed.RetryAfter != 1500*time.Millisecond {
		t.Errorf("%+v", failed)
	}
	if words := err.Error(); words != "matchcut: do this (InvalidArgument, ITEM_ID, item.item_id)" {
		t.Error(words)
	}
	if whole := status.Convert(err); status.Code(err) != codes.InvalidArgument || len(whole.Details()) != 4 {
		t.Errorf("%v", whole)
	}
}

func TestAWishBeyondMeasure(t *testing.T) {
	for _, each := range []struct {
		delay  *durationpb.Duration
		wanted time.Duration
	}{
		{&durationpb.Duration{Seconds: math.MaxInt64, Nanos: math.MaxInt32}, math.MaxInt64},
		{&durationpb.Duration{Seconds: math.MinInt64, Nanos: math.MinInt32}, 0},
		{&durationpb.Duration{Nanos: -1}, 0},
		{nil, 0},
	} {
		err := fromRPC(detailed(t, codes.Unavailable, &errdetails.RetryInfo{RetryDelay: each.delay}))
		if failed := err.(*Error); failed.RetryAfter != each.wanted || !failed.wished {
			t.Errorf("%v: %v", each.delay, failed.RetryAfter)
		}
	}
	endless := &Error{Code: codes.Unavailable, RetryAfter: math.MaxInt64, wished: true}
	pause, again := Retry{Maximum: math.MaxInt64}.filled().pause(1, endless, func() float64 { return 0.5 })
	if pause != math.MaxInt64 || !again {
		t.Error(pause, again)
	}
}

func TestEachCodeHasItsError(t *testing.T) {
	for code := codes.Canceled; code <= codes.Unauthenticated; code++ {
		wanted, known := sentinels[code]
		if !known {
			wanted = ErrServer
		}
		err := fromRPC(status.Error(code, "words"))
		for _, sentinel := range append([]error{ErrServer}, ErrInvalidInput, ErrNotFound, ErrFailedPrecondition,
			ErrOverloaded, ErrDeadlineExceeded, ErrCancelled, ErrUnavailable, ErrUnauthenticated, ErrNotAllowed) {
			if errors.Is(err, sentinel) != (sentinel == wanted) {
				t.Errorf("%v: %v", code, sentinel)
			}
		}
	}
	want(t, fromRPC(status.Error(codes.OutOfRange, "")), ErrInvalidInput)
	want(t, fromRPC(status.Error(codes.DeadlineExceeded, "")), context.DeadlineExceeded)
	want(t, fromRPC(status.Error(codes.Canceled, "")), context.Canceled)
	want(t, fromRPC(context.DeadlineExceeded), ErrDeadlineExceeded)
}

func TestAnErrorWithoutWords(t *testing.T) {
	if words := fromRPC(status.Error(codes.Aborted, "")).Error(); words !=
		"matchcut: the call failed with status Aborted and no message (Aborted)" {
		t.Error(words)
	}
}

func TestWhatIsNoStatusStaysAsItIs(t *testing.T) {
	if fromRPC(nil) != nil || fromRPC(io.ErrUnexpectedEOF) != io.ErrUnexpectedEOF {
		t.Error("it has been changed")
	}
}
