package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/code"

	"matchcut"
	v1 "matchcut/v1"
)

const side = 64 // pixels, of the frames that are made here

// clips are the items, with their tags.
var clips = []struct {
	name string
	tags []string
}{
	{"a", []string{"people"}},
	{"bikes", []string{"traffic", "outdoors"}},
	{"carphone", []string{"people", "traffic"}},
}

// hourAgo is when things happened, so many microseconds later, in microseconds since the Unix epoch.
var hourAgo = time.Now().Add(-time.Hour).UnixMicro()

// fill puts items in, with progress.
func (v visitor) fill() {
	for _, clip := range clips {
		grew, last, all := "growing", int64(0), int64(0)
		media := matchcut.File(v.clip(clip.name))
		media.Progress = func(sent, total int64) {
			if sent <= last {
				grew = "not growing"
			}
			last, all = sent, total
		}
		told := must(v.Ingest(v.ctx, &v1.IngestHeader{Item: &v1.Item{
			ItemId:     clip.name,
			Title:      "The clip " + clip.name,
			Tags:       clip.tags,
			Attributes: map[string]string{"file": clip.name + ".mp4"},
		}}, media))
		fmt.Printf("%s: sent %d of %d bytes, %s\n", clip.name, last, all, grew)
		fmt.Printf("%s: %s\n", clip.name, outcome(told))
	}
	bikes := &v1.Item{ItemId: "bikes", Title: "Bikes", Tags: clips[1].tags}
	again := must(v.Ingest(v.ctx, &v1.IngestHeader{Item: bikes}, matchcut.File(v.clip("bikes"))))
	fmt.Printf("bikes again: %s, titled %s\n", outcome(again), again.Item.Title)
}

// outcome is what an ingest did, in words.
func outcome(told *v1.IngestResponse) string {
	did := strings.TrimPrefix(told.Outcome.String(), "INGEST_OUTCOME_")
	words := fmt.Sprintf("%s, %d segments, %.2f s", did, told.SegmentCount, seconds(told.Item.DurationUs))
	if report := told.Report; report != nil {
		words += fmt.Sprintf(", %s %d x %d", report.Codec, report.Width, report.Height)
	}
	return words
}

func seconds(us int64) float64 {
	return float64(us) / 1e6
}

// look tells what is in the catalogue, and puts an item in from a vector of another's.
func (v visitor) look() {
	stored := must(v.Get(v.ctx, &v1.GetItemRequest{ItemId: "carphone", IncludeVectors: true}))
	item, first := stored.Item, stored.Segments[0]
	fmt.Printf("carphone: %s, tags %s, file %s\n", item.Title, strings.Join(item.Tags, " "), item.Attributes["file"])
	fmt.Printf("carphone: first segment %.2f to %.2f s, %d numbers\n",
		seconds(first.Range.StartUs), seconds(first.Range.EndUs), len(first.Vector))
	fmt.Println("twin:", outcome(must(v.IngestVectors(v.ctx, &v1.IngestVectorsRequest{
		Item:     &v1.Item{ItemId: "twin", Title: "A vector"},
		Segments: []*v1.Segment{{Range: &v1.TimeRange{EndUs: 1e6}, Vector: first.Vector}},
	}))))
	fmt.Println("items:", strings.Join(v.ids(&v1.ListItemsRequest{PageSize: 2}), " "))
	tags := &v1.TagFilter{AllOf: []string{"traffic"}, NoneOf: []string{"people"}}
	fmt.Println("traffic, not people:", strings.Join(v.ids(&v1.ListItemsRequest{Tags: tags}), " "))
}

// ask ranks the catalogue against items, a vector and a clip.
func (v visitor) ask() {
	show("like bikes", must(v.Recommend(v.ctx, &v1.RecommendRequest{Query: matchcut.LikeItems("bikes")})))
	stored := must(v.Get(v.ctx, &v1.GetItemRequest{ItemId: "carphone", IncludeVectors: true}))
	vector, two := matchcut.LikeVector(stored.Segments[0].Vector), &v1.RankOptions{Limit: 2}
	show("like a vector", must(v.Recommend(v.ctx, &v1.RecommendRequest{Query: vector, Options: two})))
	clip := matchcut.File(v.clip("carphone_distorted"))
	others := &v1.RecommendLiveHeader{Options: &v1.RankOptions{ExcludeItemIds: []string{"twin"}}}
	show("like a clip", must(v.RecommendClip(v.ctx, others, clip)))
	people := &v1.RecommendLiveHeader{Options: &v1.RankOptions{Tags: &v1.TagFilter{AnyOf: []string{"people"}}}}
	show("like a clip, people only", must(v.RecommendClip(v.ctx, people, clip)))
}

// watch has live media, and rankings that improve.
func (v visitor) watch() {
	header := &v1.RecommendLiveHeader{Options: &v1.RankOptions{FramesPerUpdate: 4, Limit: 2}}
	fmt.Print("live container:")
	live := v.Live(v.ctx, header, matchcut.File(v.clip("bikes")))
	for live.Next() {
		fmt.Print(" ", live.Ranking().Revision)
	}
	fmt.Println()
	check(live.Err())

	live = v.Live(v.ctx, header, frames(9))
	for live.Next() {
		what := fmt.Sprint("live frames ", live.Ranking().Revision)
		if live.Ranking().Final {
			what += ", the last"
		}
		show(what, live.Ranking())
	}
	check(live.Err())

	pictures := []string{"lion", "tower"}
	at := -1
	live = v.Live(v.ctx, nil, matchcut.Pictures(func() (*v1.Picture, error) {
		if at++; at == len(pictures) {
			return nil, io.EOF
		}
		data, err := os.ReadFile(filepath.Join(v.media, pictures[at]+".jpg"))
		return &v1.Picture{Data: data, TimeUs: int64(at) * 1e6}, err
	}))
	for live.Next() {
	}
	check(live.Err())
	show("live pictures", live.Ranking())
}

// frames are frames of 64 x 64 pixels, RGB: two colours that move, two frames a second. A negative count has no end.
func frames(count int) *matchcut.Media {
	at := -1
	return matchcut.Frames(&v1.FrameForm{Width: side, Height: side}, func() (*v1.Frame, error) {
		if at++; at == count {
			return nil, io.EOF
		}
		var pixels []byte
		for y := 0; y < side; y++ {
			for x := 0; x < side; x++ {
				pixels = append(pixels, byte(x*4+at*16), byte(y*4), byte(x*y+at*8))
			}
		}
		return &v1.Frame{Pixels: pixels, TimeUs: int64(at) * 5e5}, nil
	})
}

// follow tells what a user did, and what that user should see.
func (v visitor) follow() {
	ann := &v1.RecommendForUserRequest{UserId: "ann"}
	showUser("nobody knows ann", must(v.RecommendFor(v.ctx, ann)))
	events := []*v1.Event{
		{UserId: "ann", ItemId: "bikes", Kind: v1.EventKind_EVENT_KIND_LIKE, TimeUs: hourAgo, EventId: "1"},
		{UserId: "ann", ItemId: "a", Kind: v1.EventKind_EVENT_KIND_WATCH, TimeUs: hourAgo + 60e6, EventId: "2",
			Extent: &v1.Event_Fraction{Fraction: 0.25}},
		{UserId: "ann", ItemId: "not-there-yet", Kind: v1.EventKind_EVENT_KIND_CLICK, TimeUs: hourAgo + 120e6, EventId: "3"},
	}
	for _, turn := range []string{"first", "second"} {
		told := must(v.Record(v.ctx, events...))
		fmt.Printf("%s time: %d new, %d known, %d of unknown items\n",
			turn, told.Recorded, told.Duplicates, told.UnknownItems)
	}
	seen := true
	all := &v1.UserOptions{IncludeSeen: &seen}
	showUser("for ann", must(v.RecommendFor(v.ctx, &v1.RecommendForUserRequest{UserId: "ann", UserOptions: all})))
	showUser("for ann, unseen", must(v.RecommendFor(v.ctx, ann)))
	history := []*v1.Event{{ItemId: "carphone", Kind: v1.EventKind_EVENT_KIND_LIKE, TimeUs: hourAgo + 180e6}}
	showUser("for a history", must(v.RecommendFor(v.ctx, &v1.RecommendForUserRequest{History: history})))

	live := must(v.LiveFor(v.ctx, &v1.RecommendForUserLiveHeader{UserId: "ann", UserOptions: all}, nil))
	defer live.Close()
	showUser("live for ann", live.Latest())
	saves := &v1.Event{ItemId: "carphone", Kind: v1.EventKind_EVENT_KIND_SAVE, TimeUs: hourAgo + 180e6, EventId: "4"}
	showUser("ann saves carphone", must(live.Event(saves)))
	showUser("the end", must(live.End()))
	receipt := must(v.Forget(v.ctx, "ann"))
	fmt.Printf("ann forgotten: %d events; again: %d\n", receipt.Events, must(v.Forget(v.ctx, "ann")).Events)
}

// fail shows that what goes wrong comes as Go's errors, with the server's words.
func (v visitor) fail() {
	_, err := v.Get(v.ctx, &v1.GetItemRequest{ItemId: "nobody"})
	missed("an item that is not there", err)
	short := []*v1.Segment{{Vector: []float32{1, 2}}}
	_, err = v.IngestVectors(v.ctx, &v1.IngestVectorsRequest{Item: &v1.Item{ItemId: "short"}, Segments: short})
	missed("a vector too short", err)
	text := matchcut.Bytes([]byte(strings.Repeat("This is no video at all. ", 100)))
	_, err = v.Ingest(v.ctx, &v1.IngestHeader{Item: &v1.Item{ItemId: "text"}}, text)
	missed("no video", err)
	many := &v1.RankOptions{Limit: 1001}
	_, err = v.Recommend(v.ctx, &v1.RecommendRequest{Query: matchcut.LikeItems("bikes"), Options: many})
	missed("too many", err)
	ctx, cancel := context.WithTimeout(v.ctx, time.Millisecond)
	defer cancel()
	_, err = v.RecommendClip(ctx, nil, matchcut.File(v.clip("bikes")))
	missed("no time", err)
}

// missed prints the error of a call, of one that had no time its code alone.
func missed(what string, err error) {
	var failed *matchcut.Error
	switch {
	case !errors.As(err, &failed):
		fmt.Printf("%s: no error of the call: %v\n", what, err)
	case errors.Is(err, matchcut.ErrDeadlineExceeded):
		fmt.Printf("%s: %s\n", what, code.Code(failed.Code))
	default:
		field := failed.Field
		if field == "" {
			field = "-"
		}
		fmt.Printf("%s: %s %s %s %s\n", what, code.Code(failed.Code), failed.Reason, field, failed.Message)
	}
}

// stop shows that calls that are given up leave nothing behind.
func (v visitor) stop() {
	live := v.Live(v.ctx, &v1.RecommendLiveHeader{Options: &v1.RankOptions{FramesPerUpdate: 1}}, frames(-1))
	if live.Next() {
		fmt.Println("stopped after ranking", live.Ranking().Revision)
	}
	live.Close()
	check(live.Err())

	enough := errors.New("enough")
	bikes := must(os.Open(v.clip("bikes")))
	defer bikes.Close()
	half := io.MultiReader(io.LimitReader(bikes, 200_000), failing{enough})
	_, err := v.Ingest(v.ctx, &v1.IngestHeader{Item: &v1.Item{ItemId: "half"}}, matchcut.Reader(half))
	if errors.Is(err, enough) {
		fmt.Println("an upload given up")
	}
	if _, err = v.Get(v.ctx, &v1.GetItemRequest{ItemId: "half"}); errors.Is(err, matchcut.ErrNotFound) {
		fmt.Println("half: not there")
	}
}

// failing is a reader that has nothing but an error.
type failing struct{ err error }

func (f failing) Read([]byte) (int, error) {
	return 0, f.err
}
