package matchcut

import (
	"context"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	v1 "matchcut/v1"
)

// Live is rankings that improve while media arrives:
//
//	live := client.Live(ctx, &v1.RecommendLiveHeader{}, matchcut.Reader(camera))
//	defer live.Close()
//	for live.Next() {
//		fmt.Println(live.Ranking().Matches)
//	}
//	return live.Err()
//
// It is for one goroutine, but Close may be called from any.
type Live struct {
	sending *sending // nil: the call could not begin
	ranking *v1.RecommendResponse
	over    bool
	err     error
}

// Live ranks again and again while media arrives. header says how and may be nil; its tenant and the media's form are
// filled in. The call lasts until the media ends, the context does, or Close is called; it has no timeout of the
// client's and is not tried again. Naming a container's format, as "mpegts", makes the first ranking come earlier.
func (c *Client) Live(ctx context.Context, header *v1.RecommendLiveHeader, media *Media) *Live {
	out := liveOutgoing(proto.Clone(own(c, header)).(*v1.RecommendLiveHeader), media)
	total, _, err := media.stat()
	if err != nil {
		return &Live{err: err, over: true}
	}
	out.meter = media.meter(total)
	sending, err := begin(ctx, c.openLive, out)
	return &Live{sending: sending, err: fromRPC(err), over: err != nil}
}

// Next waits for the next ranking; false at the end, and where the call failed, see Err.
func (l *Live) Next() bool {
	if l.over {
		return false
	}
	ranking := &v1.RecommendResponse{}
	err := l.sending.stream.RecvMsg(ranking)
	if err == nil {
		l.ranking = ranking
		return true
	}
	l.over = true
	if ended := l.sending.stop(err); err != io.EOF {
		l.err = ended
	}
	l.sending.quiet()
	return false
}

// Ranking is the ranking that Next waited for. The last has Final set.
func (l *Live) Ranking() *v1.RecommendResponse {
	return l.ranking
}

// Err is why no more rankings come; nil: the last has been. What the caller's media returned is returned as it is.
func (l *Live) Err() error {
	return l.err
}

// Close cancels the call unless it has ended.
func (l *Live) Close() {
	if l.sending != nil {
		l.sending.stop(nil)
	}
}

func (c *Client) openLive(ctx context.Context) (grpc.ClientStream, error) {
	return c.recommender.RecommendLive(ctx)
}

func liveOutgoing(header *v1.RecommendLiveHeader, media *Media) outgoing {
	header.Media = media.header(header.Media)
	return outgoing{
		header: &v1.RecommendLiveRequest{Message: &v1.RecommendLiveRequest_Header{Header: header}},
		chunk: func(chunk *v1.MediaChunk) proto.Message {
			return &v1.RecommendLiveRequest{Message: &v1.RecommendLiveRequest_Chunk{Chunk: chunk}}
		},
		media: media,
	}
}
