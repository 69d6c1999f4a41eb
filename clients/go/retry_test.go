package matchcut

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	v1 "matchcut/v1"
)

func TestPause(t *testing.T) {
	away := &Error{Code: codes.Unavailable}
	full := &Error{Code: codes.ResourceExhausted}
	wish := func(seconds float64) *Error {
		return &Error{Code: codes.ResourceExhausted, RetryAfter: time.Duration(seconds * float64(time.Second)), wished: true}
	}
	for _, each := range []struct {
		name    string
		attempt int
		failed  *Error
		draw    float64
		pause   time.Duration
		again   bool
	}{
		{"the first", 1, away, 0, 100 * time.Millisecond, true},
		{"it grows", 3, away, 0, 400 * time.Millisecond, true},
		{"it shrinks by up to half", 2, away, 0.5, 150 * time.Millisecond, true},
		{"it has a maximum", 9, away, 0, 10 * time.Second, true},
		{"attempts are over", 10, away, 0, 0, false},
		{"a wish", 1, wish(2), 0, 2 * time.Second, true},
		{"a wish grows by up to a quarter", 1, wish(2), 0.5, 2250 * time.Millisecond, true},
		{"a wish of none", 1, wish(0), 0.5, 0, true},
		{"a wish as long as the maximum", 1, wish(10), 0, 10 * time.Second, true},
		{"a wish beyond the maximum", 1, wish(10.1), 0, 0, false},
		{"a limit that waiting does not lift", 1, full, 0, 0, false},
	} {
		t.Run(each.name, func(t *testing.T) {
			policy := Retry{Attempts: 10}.filled()
			pause, again := policy.pause(each.attempt, each.failed, func() float64 { return each.draw })
			if again != each.again || again && pause != each.pause {
				t.Errorf("%v %v, wanted %v %v", pause, again, each.pause, each.again)
			}
		})
	}
}

func TestDefaults(t *testing.T) {
	wanted := Retry{Attempts: 4, Initial: 100 * time.Millisecond, Maximum: 10 * time.Second, Multiplier: 2}
	if got := (Retry{}).filled(); got != wanted {
		t.Errorf("%+v", got)
	}
}

func TestAReadIsTriedAgain(t *testing.T) {
	calls := 0
	client, pauses := connect(t, &fake{get: func(context.Context, *v1.GetItemRequest) (*v1.GetItemResponse, error) {
		if calls++; calls < 3 {
			return nil, unavailable()
		}
		return &v1.GetItemResponse{FromVectors: true}, nil
	}}, Options{})
	stored, err := client.Get(soon(t), &v1.GetItemRequest{ItemId: "a"})
	none(t, err)
	if got := fmt.Sprint(*pauses); !stored.FromVectors || got != "[100ms 200ms]" {
		t.Errorf("pauses %s, %v", got, stored)
	}
}

func TestTriesAreOver(t *testing.T) {
	calls := 0
	client, _ := connect(t, &fake{get: func(context.Context, *v1.GetItemRequest) (*v1.GetItemResponse, error) {
		calls++
		return nil, unavailable()
	}}, Options{})
	reply, err := client.Get(soon(t), nil)
	want(t, err, ErrUnavailable)
	if calls != 4 || reply != nil {
		t.Errorf("%d calls, %v", calls, reply)
	}
}

func TestARemovalIsTriedAgainOnlyWhereItWasRefused(t *testing.T) {
	var told error
	calls := 0
	client, pauses := connect(t, &fake{remove: func(*v1.RemoveItemRequest) (*v1.RemoveItemResponse, error) {
		if calls++; calls == 1 {
			return nil, told
		}
		return &v1.RemoveItemResponse{Removed: true}, nil
	}}, Options{})
	told = unavailable()
	_, err := client.Remove(soon(t), &v1.RemoveItemRequest{ItemId: "a"})
	want(t, err, ErrUnavailable)
	calls, told = 0, detailed(t, codes.ResourceExhausted, retryAfter(300*time.Millisecond))
	removed, err := client.Remove(soon(t), &v1.RemoveItemRequest{ItemId: "a"})
	none(t, err)
	if got := fmt.Sprint(*pauses); !removed.Removed || got != "[300ms]" {
		t.Errorf("pauses %s", got)
	}
}

func TestTheDeadlineIsForAllTries(t *testing.T) {
	var left []time.Duration
	client, pauses := connect(t, &fake{get: func(ctx context.Context, _ *v1.GetItemRequest) (*v1.GetItemResponse, error) {
		deadline, _ := ctx.Deadline()
		left = append(left, time.Until(deadline))
		return nil, detailed(t, codes.Unavailable, retryAfter(time.Duration(len(left))*4*time.Second))
	}}, Options{Timeout: 6 * time.Second})
	_, err := client.Get(context.Background(), nil)
	want(t, err, ErrUnavailable) // a pause of 8 s does not fit
	if len(left) != 2 || left[0] > 6*time.Second || left[1] > left[0] || len(*pauses) != 1 {
		t.Errorf("left %v, pauses %v", left, *pauses)
	}
}

func TestThePauseCanBeCancelled(t *testing.T) {
	client, _ := connect(t, &fake{get: func(context.Context, *v1.GetItemRequest) (*v1.GetItemResponse, error) {
		return nil, unavailable()
	}}, Options{Retry: Retry{Initial: time.Hour, Maximum: time.Hour}})
	ctx, cancel := context.WithCancel(context.Background())
	client.sleep = func(ctx context.Context, pause time.Duration) error {
		cancel()
		return sleep(ctx, pause)
	}
	_, err := client.Get(ctx, nil)
	want(t, err, ErrCancelled)
	want(t, err, context.Canceled)
}

func TestSleep(t *testing.T) {
	none(t, sleep(context.Background(), time.Microsecond))
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	want(t, sleep(ctx, time.Hour), context.Canceled)
}

func TestChanceDiffers(t *testing.T) {
	one, other := chance(), chance()
	if a, b := one(), other(); a == b || a < 0 || a >= 1 {
		t.Errorf("%v, %v", a, b)
	}
}

func TestErrorsThatAreNoCallsAreNotTriedAgain(t *testing.T) {
	client := &Client{retry: Retry{}.filled()}
	own := errors.New("own")
	for _, err := range []error{own, status.Error(codes.NotFound, "")} {
		calls := 0
		got := client.again(context.Background(), read, func(context.Context) error {
			calls++
			return err
		})
		if calls != 1 || got == nil {
			t.Errorf("%d calls, %v", calls, got)
		}
	}
}
