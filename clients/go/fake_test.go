package matchcut

import (
	"context"
	"errors"
	"io"
	"net"
	"runtime"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	v1 "matchcut/v1"
)

const patience = 10 * time.Second // bounds a fault; nothing waits that long otherwise

// fake is a server whose answers are a test's. What a test does not give is UNIMPLEMENTED.
type fake struct {
	v1.UnimplementedCatalogServer
	v1.UnimplementedRecommenderServer
	v1.UnimplementedEventsServer

	ingest    func(v1.Catalog_IngestServer) error
	get       func(context.Context, *v1.GetItemRequest) (*v1.GetItemResponse, error)
	list      func(*v1.ListItemsRequest) (*v1.ListItemsResponse, error)
	remove    func(*v1.RemoveItemRequest) (*v1.RemoveItemResponse, error)
	recommend func(*v1.RecommendRequest) (*v1.RecommendResponse, error)
	live      func(v1.Recommender_RecommendLiveServer) error
	userLive  func(v1.Recommender_RecommendForUserLiveServer) error
	record    func(*v1.RecordEventsRequest) (*v1.RecordEventsResponse, error)
}

func (f *fake) Ingest(stream v1.Catalog_IngestServer) error { return f.ingest(stream) }

func (f *fake) GetItem(ctx context.Context, request *v1.GetItemRequest) (*v1.GetItemResponse, error) {
	return f.get(ctx, request)
}

func (f *fake) ListItems(_ context.Context, request *v1.ListItemsRequest) (*v1.ListItemsResponse, error) {
	return f.list(request)
}

func (f *fake) RemoveItem(_ context.Context, request *v1.RemoveItemRequest) (*v1.RemoveItemResponse, error) {
	return f.remove(request)
}

func (f *fake) Recommend(_ context.Context, request *v1.RecommendRequest) (*v1.RecommendResponse, error) {
	return f.recommend(request)
}

func (f *fake) RecommendLive(stream v1.Recommender_RecommendLiveServer) error { return f.live(stream) }

func (f *fake) RecommendForUserLive(stream v1.Recommender_RecommendForUserLiveServer) error {
	return f.userLive(stream)
}

func (f *fake) RecordEvents(_ context.Context, request *v1.RecordEventsRequest) (*v1.RecordEventsResponse, error) {
	return f.record(request)
}

// serve runs the fake for one test and returns its address.
func serve(t *testing.T, f *fake, options ...grpc.ServerOption) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(options...)
	v1.RegisterCatalogServer(server, f)
	v1.RegisterRecommenderServer(server, f)
	v1.RegisterEventsServer(server, f)
	grpc_health_v1.RegisterHealthServer(server, health.NewServer())
	go server.Serve(listener)
	t.Cleanup(server.Stop)
	return listener.Addr().String()
}

// connect serves the fake and makes a client that does not really pause, but notes how long it would have. It fails the
// test if goroutines are left when it is over.
func connect(t *testing.T, f *fake, options Options, server ...grpc.ServerOption) (*Client, *[]time.Duration) {
	t.Helper()
	before := runtime.NumGoroutine()
	t.Cleanup(func() { // the last to run: after the client and the server have been closed
		for since := time.Now(); runtime.NumGoroutine() > before; time.Sleep(time.Millisecond) {
			if time.Since(since) > patience {
				stacks := make([]byte, 1<<20)
				t.Errorf("goroutines are left:\n%s", stacks[:runtime.Stack(stacks, true)])
				return
			}
		}
	})
	client, err := Dial(serve(t, f, server...), options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	pauses := &[]time.Duration{}
	client.draw = func() float64 { return 0 }
	client.sleep = func(ctx context.Context, pause time.Duration) error {
		*pauses = append(*pauses, pause)
		return ctx.Err()
	}
	return client, pauses
}

// soon is a context that ends a test which would otherwise hang.
func soon(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// wait fails the test unless the channel is closed soon.
func wait(t *testing.T, done <-chan struct{}) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatal("it hangs")
	}
}

// want fails the test unless the error is the one wanted.
func want(t *testing.T, err, wanted error) {
	t.Helper()
	if !errors.Is(err, wanted) {
		t.Fatalf("%v, wanted %v", err, wanted)
	}
}

func none(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func token(ctx context.Context) string {
	sent, _ := metadata.FromIncomingContext(ctx)
	if words := sent.Get("authorization"); len(words) == 1 {
		return words[0]
	}
	return ""
}

func unavailable() error { return status.Error(codes.Unavailable, "away") }

// upload is what a server got of an ingest.
type upload struct {
	header *v1.IngestHeader
	data   []byte
	chunks int
	ended  bool // with the end message
}

func receive(stream v1.Catalog_IngestServer) (got upload, err error) {
	for {
		request, err := stream.Recv()
		if err == io.EOF {
			return got, nil
		}
		if err != nil {
			return got, err
		}
		switch message := request.Message.(type) {
		case *v1.IngestRequest_Header:
			got.header = message.Header
		case *v1.IngestRequest_Chunk:
			got.data = append(got.data, message.Chunk.GetData()...)
			got.chunks++
		case *v1.IngestRequest_End:
			got.ended = true
		}
	}
}

// blocked is a reader that gives its text and then waits until free is closed.
type blocked struct {
	text   string
	inside chan struct{} // closed once a Read waits
	free   chan struct{}
}

func newBlocked(text string) *blocked {
	return &blocked{text: text, inside: make(chan struct{}), free: make(chan struct{})}
}

func (b *blocked) Read(room []byte) (int, error) {
	if b.text != "" {
		length := copy(room, b.text)
		b.text = b.text[length:]
		return length, nil
	}
	close(b.inside) // panics if it is read once more
	<-b.free
	return 0, io.EOF
}
