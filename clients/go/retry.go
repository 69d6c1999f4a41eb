package matchcut

import (
	"context"
	crypto "crypto/rand"
	"encoding/binary"
	"errors"
	"math"
	"math/rand"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
)

// Retry is exponential backoff with jitter, for calls that are safe to send again: reads, and ingests whose source can
// be read twice (a file, bytes, vectors), when the server is unavailable or says when to come back. A removal is sent
// again only when the server refused to start it. A field that is 0 has its default.
type Retry struct {
	// Attempts is the number of tries in all; 1 means none again. Default 4.
	Attempts int
	// Initial is the pause before the second try. Default 100 ms.
	Initial time.Duration
	// Maximum is the longest pause. A server that asks for more is not waited for: its error is returned. Default 10 s.
	Maximum time.Duration
	// Multiplier is the growth of the pause from try to try. Default 2.
	Multiplier float64
}

func (r Retry) filled() Retry {
	if r.Attempts == 0 {
		r.Attempts = 4
	}
	if r.Initial == 0 {
		r.Initial = 100 * time.Millisecond
	}
	if r.Maximum == 0 {
		r.Maximum = 10 * time.Second
	}
	if r.Multiplier == 0 {
		r.Multiplier = 2
	}
	return r
}

// pause is how long to wait after the failed try number attempt (from 1); false: give up.
//
// draw gives the jitter, uniform in [0, 1): a backoff shrinks by up to half, a server's wish grows by up to a quarter,
// so that callers who were turned away together do not come back together.
func (r Retry) pause(attempt int, failed *Error, draw func() float64) (time.Duration, bool) {
	if attempt >= r.Attempts {
		return 0, false
	}
	if failed.wished {
		pause := failed.RetryAfter + time.Duration(float64(failed.RetryAfter)*draw()/4)
		if pause < failed.RetryAfter { // beyond what a Duration holds
			pause = math.MaxInt64
		}
		return pause, failed.RetryAfter <= r.Maximum
	}
	if failed.Code == codes.ResourceExhausted {
		return 0, false // a limit, such as a message's size, that waiting does not lift
	}
	grown := float64(r.Initial) * math.Pow(r.Multiplier, float64(attempt-1))
	return time.Duration(math.Min(float64(r.Maximum), grown) * (1 - draw()/2)), true
}

// repeatable says after which errors a call may be sent again.
type repeatable []codes.Code

var (
	never   repeatable
	read    = repeatable{codes.Unavailable, codes.ResourceExhausted} // also where doing it twice is doing it once
	refused = repeatable{codes.ResourceExhausted}                    // for what must not be done twice: it was not begun
)

func (r repeatable) after(code codes.Code) bool {
	for _, each := range r {
		if each == code {
			return true
		}
	}
	return false
}

// again carries a call out, with as many tries as it takes and the policy allows; they share the context's deadline,
// or where it has none the client's timeout. The error of a call is an *Error, any other comes from the caller's media.
func (c *Client) again(ctx context.Context, when repeatable, try func(context.Context) error) error {
	if _, bounded := ctx.Deadline(); !bounded && c.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.timeout)
		defer cancel()
	}
	for attempt := 1; ; attempt++ {
		err := fromRPC(try(ctx))
		var failed *Error
		if !errors.As(err, &failed) || !when.after(failed.Code) {
			return err
		}
		pause, worth := c.retry.pause(attempt, failed, c.draw)
		if deadline, bounded := ctx.Deadline(); !worth || bounded && time.Until(deadline) <= pause {
			return err
		}
		if err := c.sleep(ctx, pause); err != nil {
			return fromRPC(err)
		}
	}
}

func sleep(ctx context.Context, pause time.Duration) error {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// chance makes a source of numbers in [0, 1), which differ from process to process; goroutines may share it.
func chance() func() float64 {
	var seed [8]byte
	if _, err := crypto.Read(seed[:]); err != nil {
		binary.LittleEndian.PutUint64(seed[:], uint64(time.Now().UnixNano()))
	}
	var mutex sync.Mutex
	numbers := rand.New(rand.NewSource(int64(binary.LittleEndian.Uint64(seed[:]))))
	return func() float64 {
		mutex.Lock()
		defer mutex.Unlock()
		return numbers.Float64()
	}
}
