package matchcut

import (
	"context"
	"io"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	v1 "matchcut/v1"
)

// outgoing is what a call with media sends: a header, chunks, and where the method has one an end.
type outgoing struct {
	header proto.Message
	chunk  func(*v1.MediaChunk) proto.Message
	end    proto.Message // nil: none
	media  *Media        // nil: no chunks
	meter  *meter        // nil: nobody counts
}

// sending is the way out of a call: a goroutine of its own sends the media, while the call's owner receives.
//
// The mutex is held by whoever sends, and by that goroutine always but when it waits for the caller's media. So stop
// waits for all that ends by itself, and not for a read that may take forever. Nor does that goroutine hold it while
// Progress runs, which may end the call or send events; whoever must not return before Progress has calls quiet.
type sending struct {
	mutex   sync.Mutex
	stream  grpc.ClientStream
	cancel  context.CancelFunc
	stopped bool  // nothing more is to be sent
	failure error // of the caller's media, or of a message that could not be sent

	telling sync.Mutex // held while Progress runs
}

// begin starts a call and sends its header; the media follows from a goroutine that ends when the call does.
func begin(ctx context.Context, open func(context.Context) (grpc.ClientStream, error), out outgoing) (*sending, error) {
	var from pieces
	if out.media != nil {
		var err error
		if from, err = out.media.open(); err != nil {
			return nil, err
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	stream, err := open(ctx)
	if err != nil {
		cancel()
		if from != nil {
			from.close()
		}
		return nil, err
	}
	s := &sending{stream: stream, cancel: cancel}
	s.send(out.header)
	if from != nil {
		go s.run(from, out)
	}
	return s, nil
}

// run sends the media and ends the sending side.
func (s *sending) run(from pieces, out outgoing) {
	defer from.close()
	s.mutex.Lock()
	defer s.mutex.Unlock()
	for !s.stopped {
		chunk, err := s.await(from)
		switch {
		case s.stopped:
		case err == io.EOF:
			s.finish(out.end)
		case err != nil:
			s.fail(err)
		case s.sendLocked(out.chunk(chunk)):
			s.tell(out.meter, len(chunk.GetData()))
		}
	}
}

// await takes the next piece from the caller, which may take any time.
func (s *sending) await(from pieces) (*v1.MediaChunk, error) {
	s.mutex.Unlock()
	defer s.mutex.Lock()
	return from.next()
}

// tell tells the caller how many bytes more have left.
func (s *sending) tell(meter *meter, bytes int) {
	s.telling.Lock() // before the mutex is let go, so that quiet after stop misses none
	defer s.telling.Unlock()
	s.mutex.Unlock()
	defer s.mutex.Lock()
	meter.add(bytes)
}

// quiet waits for a Progress under way; after stop none follows it. It must not be called from Progress.
func (s *sending) quiet() {
	s.telling.Lock()
	defer s.telling.Unlock()
}

// send sends a message; false if the call sends no more.
func (s *sending) send(message proto.Message) bool {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return s.sendLocked(message)
}

func (s *sending) sendLocked(message proto.Message) bool {
	if s.stopped {
		return false
	}
	if err := s.stream.SendMsg(message); err == io.EOF {
		s.stopped = true // the server has ended the call; what it answered is received, not seen here
	} else if err != nil {
		s.fail(err)
	}
	return !s.stopped
}

// finish ends the sending side, with a last message if there is one.
func (s *sending) finish(end proto.Message) {
	if end == nil || s.sendLocked(end) {
		s.stopped = true
		if err := s.stream.CloseSend(); err != nil {
			s.fail(err)
		}
	}
}

// fail cancels the call, so that the server keeps nothing of it.
func (s *sending) fail(err error) {
	s.stopped, s.failure = true, err
	s.cancel()
}

// stop ends the call, and says why what was received is err: the failure of the sending side where that came first.
func (s *sending) stop(err error) error {
	s.cancel()
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.stopped = true
	if err != nil && s.failure != nil {
		err = s.failure
	}
	return fromRPC(err)
}

// exchange carries out one try of a call that sends media and answers once. Of several replies the last counts.
func exchange[Reply any](
	ctx context.Context, open func(context.Context) (grpc.ClientStream, error), out outgoing, many bool,
) (*Reply, error) {
	sending, err := begin(ctx, open, out)
	if err != nil {
		return nil, err
	}
	var last *Reply
	for {
		reply := new(Reply)
		if err = sending.stream.RecvMsg(reply); err != nil {
			break
		}
		if last = reply; !many {
			break
		}
	}
	if err == io.EOF {
		err = nil
		if last == nil {
			err = broken("the server ended the call without a reply")
		}
	}
	err = sending.stop(err)
	sending.quiet()
	if err != nil {
		return nil, err
	}
	return last, nil
}

// meter tells how many bytes have left; nil tells nobody.
type meter struct {
	progress   func(sent, total int64)
	total      int64
	sent, most int64
}

// meter is a new one for all tries of a call.
func (m *Media) meter(total int64) *meter {
	if m.Progress == nil {
		return nil
	}
	return &meter{progress: m.Progress, total: total}
}

// restart tells that a new try begins.
func (m *meter) restart() {
	if m != nil {
		m.sent = 0
	}
}

func (m *meter) add(bytes int) {
	if m == nil {
		return
	}
	m.sent += int64(bytes)
	if m.sent > m.most {
		m.most = m.sent
		m.progress(m.sent, m.total)
	}
}
