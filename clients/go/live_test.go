package matchcut

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	v1 "matchcut/v1"
)

// counted are so many frames, or with -1 frames without end.
func counted(count int) *Media {
	at := -1
	return Frames(&v1.FrameForm{Width: 2, Height: 1}, func() (*v1.Frame, error) {
		if at++; at == count {
			return nil, io.EOF
		}
		return &v1.Frame{Pixels: make([]byte, 6), TimeUs: int64(at)}, nil
	})
}

// echo ranks once for each chunk, and at the end.
func echo(stream v1.Recommender_RecommendLiveServer) error {
	revision := int64(0)
	for {
		request, err := stream.Recv()
		if err != nil && err != io.EOF {
			return err
		}
		if request.GetHeader() != nil {
			if request.GetHeader().Tenant != "ours" || request.GetHeader().Media.Form == nil {
				return status.Errorf(codes.InvalidArgument, "%v", request)
			}
			continue
		}
		revision++
		ranking := &v1.RecommendResponse{Revision: revision, Final: err == io.EOF}
		if sent := stream.Send(ranking); sent != nil || err == io.EOF {
			return sent
		}
	}
}

func TestLive(t *testing.T) {
	client, _ := connect(t, &fake{live: echo}, Options{Tenant: "ours"})
	picture := func() (*v1.Picture, error) { return nil, io.EOF }
	for name, each := range map[string]struct {
		media     *Media
		revisions string
	}{
		"frames":    {counted(2), "1 2 3!"},
		"pictures":  {Pictures(picture), "1!"},
		"container": {Reader(strings.NewReader("abc")), "1 2!"},
	} {
		t.Run(name, func(t *testing.T) {
			var words []string
			live := client.Live(soon(t), nil, each.media)
			for live.Next() {
				word := fmt.Sprint(live.Ranking().Revision)
				if live.Ranking().Final {
					word += "!"
				}
				words = append(words, word)
			}
			none(t, live.Err())
			if got := strings.Join(words, " "); got != each.revisions || live.Next() {
				t.Errorf("%s, wanted %s", got, each.revisions)
			}
			live.Close()
			none(t, live.Err())
		})
	}
}

func TestCloseCancelsALiveCall(t *testing.T) {
	ended := make(chan error, 2)
	client, _ := connect(t, &fake{live: func(stream v1.Recommender_RecommendLiveServer) error {
		err := echo(stream)
		ended <- err
		return err
	}}, Options{Tenant: "ours"})
	live := client.Live(soon(t), nil, counted(-1))
	if !live.Next() {
		t.Fatal(live.Err())
	}
	live.Close()
	if err := <-ended; status.Code(err) != codes.Canceled && status.Code(err) != codes.Unavailable {
		t.Error(err)
	}

	source := newBlocked("some")
	defer close(source.free)
	live = client.Live(soon(t), nil, Reader(source))
	<-source.inside
	live.Close() // does not wait for the reader
	for live.Next() {
	}
	want(t, live.Err(), ErrCancelled)
}

func TestProgressMayCloseALiveCall(t *testing.T) {
	client, _ := connect(t, &fake{live: echo}, Options{Tenant: "ours"})
	var live *Live
	made, closed := make(chan struct{}), make(chan struct{})
	media := Reader(strings.NewReader("abc"))
	media.Progress = func(int64, int64) {
		<-made
		live.Close()
		close(closed)
	}
	live = client.Live(soon(t), nil, media)
	close(made)
	wait(t, closed)
	for live.Next() {
	}
	want(t, live.Err(), ErrCancelled)
}

func TestTheEndWaitsForProgress(t *testing.T) {
	refuse := func(receive func() error) error {
		receive() // the header
		receive() // the first chunk, so that Progress is called
		return status.Error(codes.InvalidArgument, "enough")
	}
	client, _ := connect(t, &fake{
		ingest: func(stream v1.Catalog_IngestServer) error {
			return refuse(func() error { _, err := stream.Recv(); return err })
		},
		live: func(stream v1.Recommender_RecommendLiveServer) error {
			return refuse(func() error { _, err := stream.Recv(); return err })
		},
	}, Options{})
	for name, call := range map[string]func(context.Context, *Media) error{
		"ingest": func(ctx context.Context, media *Media) error {
			_, err := client.Ingest(ctx, nil, media)
			return err
		},
		"live": func(ctx context.Context, media *Media) error {
			live := client.Live(ctx, nil, media)
			for live.Next() {
			}
			return live.Err()
		},
	} {
		t.Run(name, func(t *testing.T) {
			begun, over := 0, 0 // unguarded, so that the race detector sees what does not wait
			media := Reader(strings.NewReader("abc"))
			media.Progress = func(int64, int64) {
				begun++
				time.Sleep(20 * time.Millisecond) // so that the refusal comes meanwhile
				over++
			}
			want(t, call(soon(t), media), ErrInvalidInput)
			if begun != 1 || over != 1 {
				t.Errorf("the call has ended with %d of %d Progress over", over, begun)
			}
		})
	}
}

func TestALiveCallThatFails(t *testing.T) {
	client, _ := connect(t, &fake{live: echo}, Options{Tenant: "ours"})
	broken := errors.New("broken")
	failing := soon(t)
	live := client.Live(failing, nil, Pictures(func() (*v1.Picture, error) { return nil, broken }))
	for live.Next() {
	}
	if live.Err() != broken || failing.Err() != nil { // at once, not at the deadline
		t.Error(live.Err(), failing.Err())
	}
	live = client.Live(soon(t), &v1.RecommendLiveHeader{Tenant: "theirs"}, counted(-1))
	if live.Next() {
		t.Error(live.Ranking())
	}
	want(t, live.Err(), ErrInvalidInput)
	live = client.Live(soon(t), nil, File("/there/is/none"))
	if live.Next() || live.Err() == nil {
		t.Error("no error")
	}
	live.Close()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	live = client.Live(ctx, nil, counted(-1))
	if live.Next() {
		t.Error(live.Ranking())
	}
	want(t, live.Err(), context.Canceled)
}

func TestRecommendClip(t *testing.T) {
	calls := 0
	f := &fake{
		recommend: func(request *v1.RecommendRequest) (*v1.RecommendResponse, error) {
			if request.Tenant != "ours" || len(request.GetQuery().GetClip().GetChunks()) != 1 || request.Options.Limit != 3 {
				return nil, status.Errorf(codes.InvalidArgument, "%v", request)
			}
			return &v1.RecommendResponse{Revision: -1}, nil
		},
		live: func(stream v1.Recommender_RecommendLiveServer) error {
			if calls++; calls == 1 {
				return unavailable()
			}
			return echo(stream)
		},
	}
	client, _ := connect(t, f, Options{Tenant: "ours"})
	header := &v1.RecommendLiveHeader{Options: &v1.RankOptions{Limit: 3}}
	ranking, err := client.RecommendClip(soon(t), header, Bytes(make([]byte, 100)))
	none(t, err)
	if ranking.Revision != -1 {
		t.Error("a small clip went through RecommendLive")
	}
	ranking, err = client.RecommendClip(soon(t), header, Bytes(make([]byte, oneMessage+1)))
	none(t, err)
	if wanted := int64(oneMessage/pieceSize + 2); ranking.Revision != wanted || !ranking.Final || calls != 2 {
		t.Errorf("%v after %d calls", ranking, calls)
	}
	ranking, err = client.RecommendClip(soon(t), nil, Reader(strings.NewReader("abc")))
	none(t, err)
	if ranking.Revision != 2 || header.Options.FramesPerUpdate != 0 {
		t.Error(ranking, header)
	}
	calls = 0
	_, err = client.RecommendClip(soon(t), nil, Reader(strings.NewReader("abc")))
	want(t, err, ErrUnavailable) // a reader is not read twice
	_, err = client.RecommendClip(soon(t), nil, File("/there/is/none"))
	if err == nil {
		t.Error("no error")
	}
}

func TestACallThatEndsWithoutAReply(t *testing.T) {
	client, _ := connect(t, &fake{live: func(v1.Recommender_RecommendLiveServer) error { return nil }}, Options{})
	_, err := client.RecommendClip(soon(t), nil, Reader(strings.NewReader("abc")))
	want(t, err, ErrServer)
}

func TestQueries(t *testing.T) {
	client, _ := connect(t, &fake{recommend: func(request *v1.RecommendRequest) (*v1.RecommendResponse, error) {
		words := fmt.Sprint(request.Query.GetItems().GetItemIds(), request.Query.GetVector().GetValues())
		return &v1.RecommendResponse{Matches: []*v1.Match{{QueryItemId: words}}}, nil
	}}, Options{})
	for wanted, query := range map[string]*v1.Query{
		"[a b] []": LikeItems("a", "b"), "[] [1 2]": LikeVector([]float32{1, 2}),
	} {
		ranking, err := client.Recommend(soon(t), &v1.RecommendRequest{Query: query})
		none(t, err)
		if got := ranking.Matches[0].QueryItemId; got != wanted {
			t.Errorf("%s, wanted %s", got, wanted)
		}
	}
}
