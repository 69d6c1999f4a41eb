package matchcut

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	v1 "matchcut/v1"
)

func clip() []byte {
	data := make([]byte, 3*pieceSize+100)
	rand.New(rand.NewSource(1)).Read(data)
	return data
}

func item(id string) *v1.IngestHeader {
	return &v1.IngestHeader{Item: &v1.Item{ItemId: id}}
}

func TestIngest(t *testing.T) {
	var got upload
	client, _ := connect(t, &fake{ingest: func(stream v1.Catalog_IngestServer) (err error) {
		if got, err = receive(stream); err != nil {
			return err
		}
		return stream.SendAndClose(&v1.IngestResponse{SegmentCount: 3})
	}}, Options{Tenant: "ours"})
	data := clip()
	digest := sha256.Sum256(data)
	for name, media := range map[string]*Media{
		"file": File(onDisk(t, data)), "bytes": Bytes(data), "reader": Reader(bytes.NewReader(data)),
	} {
		t.Run(name, func(t *testing.T) {
			var told []string
			media.Progress = func(sent, total int64) { told = append(told, fmt.Sprint(sent, "/", total)) }
			header := item("a")
			reply, err := client.Ingest(soon(t), header, media)
			none(t, err)
			if reply.SegmentCount != 3 || got.header.Tenant != "ours" || got.header.Item.ItemId != "a" ||
				got.header.Media.GetContainer() == nil || !got.ended || got.chunks != 4 || !bytes.Equal(got.data, data) {
				t.Errorf("%v %v %d %v", reply, got.header, got.chunks, got.ended)
			}
			total, wanted := fmt.Sprint(len(data)), digest[:]
			if name == "reader" {
				total, wanted = "-1", nil
			}
			if !bytes.Equal(got.header.ContentSha256, wanted) {
				t.Errorf("digest %x", got.header.ContentSha256)
			}
			if steps := fmt.Sprintf("[%d/%s %d/%s %d/%s %d/%s]", pieceSize, total, 2*pieceSize, total, 3*pieceSize, total,
				len(data), total); fmt.Sprint(told) != steps {
				t.Errorf("%v, wanted %v", told, steps)
			}
			if header.Tenant != "" || header.Media != nil || header.ContentSha256 != nil {
				t.Errorf("the caller's header is changed: %v", header)
			}
		})
	}
	header := item("part")
	header.Media = &v1.MediaHeader{Limits: &v1.MediaLimits{Bytes: 1000}}
	_, err := client.Ingest(soon(t), header, Bytes(data))
	none(t, err)
	if len(got.header.ContentSha256) != 0 {
		t.Error("the digest of all, although a part is read")
	}
}

func TestAnIngestIsTriedAgainOnlyIfItsSourceCanBeReadTwice(t *testing.T) {
	data, calls := clip(), 0
	client, pauses := connect(t, &fake{ingest: func(stream v1.Catalog_IngestServer) error {
		got, err := receive(stream)
		if err != nil {
			return err
		}
		if calls++; calls%2 == 1 {
			return unavailable()
		}
		if !got.ended || !bytes.Equal(got.data, data) {
			return status.Error(codes.DataLoss, "the second try sent something else")
		}
		return stream.SendAndClose(&v1.IngestResponse{})
	}}, Options{})
	var told []int64
	media := File(onDisk(t, data))
	media.Progress = func(sent, _ int64) { told = append(told, sent) }
	_, err := client.Ingest(soon(t), item("a"), media)
	none(t, err)
	if calls != 2 || len(*pauses) != 1 || len(told) != 4 { // the second try tells nothing that the first has told
		t.Errorf("%d calls, pauses %v, progress %v", calls, *pauses, told)
	}
	_, err = client.Ingest(soon(t), item("a"), Reader(bytes.NewReader(data)))
	want(t, err, ErrUnavailable)
	if calls != 3 {
		t.Errorf("%d calls", calls)
	}
}

func TestASourceThatFailsCancelsTheUpload(t *testing.T) {
	ended := make(chan error, 1)
	client, _ := connect(t, &fake{ingest: func(stream v1.Catalog_IngestServer) error {
		got, err := receive(stream)
		if got.ended {
			err = errors.New("the end was sent")
		}
		ended <- err
		return err
	}}, Options{})
	broken := errors.New("broken")
	half := io.MultiReader(bytes.NewReader(clip()), iotest.ErrReader(broken))
	ctx := soon(t)
	reply, err := client.Ingest(ctx, item("half"), Reader(half))
	if err != broken || reply != nil || ctx.Err() != nil { // at once, not at the deadline
		t.Errorf("%v, %v, %v", err, reply, ctx.Err())
	}
	if seen := <-ended; status.Code(seen) != codes.Canceled {
		t.Error(seen)
	}
	_, err = client.Ingest(soon(t), item("none"), File("/there/is/none"))
	want(t, err, os.ErrNotExist)
}

func TestAnEarlyAnswerEndsTheUpload(t *testing.T) {
	refusal := status.Error(codes.InvalidArgument, "no video")
	for name, answer := range map[string]error{"error": refusal, "unchanged": nil} {
		t.Run(name, func(t *testing.T) {
			source := newBlocked("some")
			defer close(source.free)
			client, _ := connect(t, &fake{ingest: func(stream v1.Catalog_IngestServer) error {
				<-source.inside
				if answer != nil {
					return answer
				}
				return stream.SendAndClose(&v1.IngestResponse{Outcome: v1.IngestOutcome_INGEST_OUTCOME_UNCHANGED})
			}}, Options{})
			reply, err := client.Ingest(soon(t), item("a"), Reader(source))
			if answer != nil {
				want(t, err, ErrInvalidInput)
			} else if none(t, err); reply.Outcome != v1.IngestOutcome_INGEST_OUTCOME_UNCHANGED {
				t.Error(reply)
			}
		})
	}
}

// endless counts what is read of it.
type endless struct{ count int64 }

func (e *endless) Read(room []byte) (int, error) {
	atomic.AddInt64(&e.count, int64(len(room)))
	return len(room), nil
}

func TestAServerThatDoesNotReadIsWaitedFor(t *testing.T) {
	source := &endless{}
	client, _ := connect(t, &fake{ingest: func(stream v1.Catalog_IngestServer) error {
		for before := int64(-1); before != atomic.LoadInt64(&source.count); time.Sleep(100 * time.Millisecond) {
			before = atomic.LoadInt64(&source.count)
		}
		return status.Error(codes.InvalidArgument, "enough")
	}}, Options{})
	_, err := client.Ingest(soon(t), item("a"), Reader(source))
	want(t, err, ErrInvalidInput)
	if taken := atomic.LoadInt64(&source.count); taken == 0 || taken > 4<<20 {
		t.Errorf("%d bytes were taken although nobody read them", taken)
	}
}

func TestAnUploadCanBeCancelled(t *testing.T) {
	source := newBlocked("some")
	defer close(source.free)
	client, _ := connect(t, &fake{ingest: func(stream v1.Catalog_IngestServer) error {
		_, err := receive(stream)
		return err
	}}, Options{})
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		<-source.inside
		cancel()
	}()
	_, err := client.Ingest(ctx, item("a"), Reader(source))
	want(t, err, context.Canceled)
}

func TestAMessageThatCannotBeSent(t *testing.T) {
	client, _ := connect(t, &fake{ingest: func(stream v1.Catalog_IngestServer) error {
		_, err := receive(stream)
		return err
	}}, Options{})
	_, err := client.Ingest(soon(t), item("\xff"), Bytes(clip()))
	var failed *Error
	if !errors.As(err, &failed) || !strings.Contains(failed.Message, "UTF-8") {
		t.Error(err)
	}
}

func TestList(t *testing.T) {
	pages := map[string]*v1.ListItemsResponse{
		"":  {Items: []*v1.Item{{ItemId: "a"}, {ItemId: "b"}}, NextPageToken: "2"},
		"2": {NextPageToken: "3"}, // an empty page is not the end
		"3": {Items: []*v1.Item{{ItemId: "c"}}},
	}
	client, _ := connect(t, &fake{list: func(request *v1.ListItemsRequest) (*v1.ListItemsResponse, error) {
		if request.Tenant != "theirs" || request.PageSize != 2 || request.Tags.GetAllOf()[0] != "x" {
			return nil, status.Errorf(codes.InvalidArgument, "%v", request)
		}
		return pages[request.PageToken], nil
	}}, Options{Tenant: "ours"})
	request := &v1.ListItemsRequest{Tenant: "theirs", PageSize: 2, Tags: &v1.TagFilter{AllOf: []string{"x"}}}
	var ids []string
	items := client.List(soon(t), request)
	for items.Next() {
		ids = append(ids, items.Item().ItemId)
	}
	none(t, items.Err())
	if got := strings.Join(ids, " "); got != "a b c" || items.Next() {
		t.Error(got)
	}
	items = client.List(soon(t), nil)
	if items.Next() || items.Next() {
		t.Error("items of a page that failed")
	}
	want(t, items.Err(), ErrInvalidInput)
}
