package matchcut

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand"
	"os"
	"path/filepath"
	"testing"
	"testing/iotest"
	"testing/quick"

	v1 "matchcut/v1"
)

// all are the pieces of media.
func all(t *testing.T, media *Media) (data [][]byte) {
	t.Helper()
	from, err := media.open()
	none(t, err)
	defer from.close()
	for {
		chunk, err := from.next()
		if err == io.EOF {
			return data
		}
		none(t, err)
		data = append(data, chunk.GetData())
	}
}

func onDisk(t *testing.T, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "clip.mp4")
	none(t, os.WriteFile(path, data, 0o600))
	return path
}

func TestContainersComeWholeInSmallPieces(t *testing.T) {
	random := rand.New(rand.NewSource(7))
	whole := func(length uint32) bool {
		data := make([]byte, length%(3*pieceSize))
		random.Read(data)
		path := onDisk(t, data)
		for at, media := range []*Media{File(path), File(path), Bytes(data), Reader(bytes.NewReader(data))} {
			pieces := all(t, media)
			if !bytes.Equal(bytes.Join(pieces, nil), data) {
				t.Logf("media %d: %d bytes came otherwise", at, len(data))
				return false
			}
			for _, piece := range pieces {
				if len(piece) == 0 || len(piece) > pieceSize {
					t.Logf("media %d: a piece of %d bytes", at, len(piece))
					return false
				}
			}
		}
		return true
	}
	none(t, quick.Check(whole, &quick.Config{MaxCount: 20, Rand: random}))
	for _, edge := range []uint32{0, 1, pieceSize - 1, pieceSize, pieceSize + 1} {
		if !whole(edge) {
			t.Error(edge)
		}
	}
}

func TestWhatAReadGivesIsAPiece(t *testing.T) {
	pieces := all(t, Reader(iotest.OneByteReader(bytes.NewReader([]byte("abc")))))
	if got := string(bytes.Join(pieces, []byte("|"))); got != "a|b|c" {
		t.Error(got) // also if a later piece had overwritten an earlier one
	}
}

func TestDigest(t *testing.T) {
	data := bytes.Repeat([]byte("matchcut"), 100_000)
	wanted := sha256.Sum256(data)
	for _, media := range []*Media{Bytes(data), File(onDisk(t, data))} {
		got, err := media.digest(context.Background())
		none(t, err)
		if !bytes.Equal(got, wanted[:]) {
			t.Errorf("%x", got)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := Bytes(data).digest(ctx)
	want(t, err, context.Canceled)
}

func TestStat(t *testing.T) {
	size, again, err := File(onDisk(t, []byte("four"))).stat()
	if size != 4 || !again || err != nil {
		t.Error(size, again, err)
	}
	size, again, err = File(os.DevNull).stat()
	if size != -1 || again || err != nil {
		t.Error(size, again, err)
	}
	_, _, err = File(filepath.Join(t.TempDir(), "none")).stat()
	want(t, err, os.ErrNotExist)
}

func TestHeaderKeepsTheCallersAndSaysTheForm(t *testing.T) {
	given := &v1.MediaHeader{
		Form:   &v1.MediaHeader_Container{Container: &v1.ContainerForm{Format: "mpegts"}},
		Limits: &v1.MediaLimits{Frames: 5},
	}
	header := Bytes(nil).header(given)
	if header.GetContainer().GetFormat() != "mpegts" || header.GetLimits().GetFrames() != 5 {
		t.Errorf("%v", header)
	}
	if header := Bytes(nil).header(nil); header.GetContainer() == nil {
		t.Errorf("%v", header)
	}
	if header := Pictures(nil).header(given); header.GetPictures() == nil || given.GetContainer() == nil {
		t.Errorf("%v, %v", header, given)
	}
	if header := Frames(&v1.FrameForm{Width: 3}, nil).header(nil); header.GetFrames().GetWidth() != 3 {
		t.Errorf("%v", header)
	}
}

func TestLikeClip(t *testing.T) {
	data := make([]byte, pieceSize+1)
	query, err := LikeClip(&v1.ClipQuery{Temporal: v1.Temporal_TEMPORAL_GRU}, Bytes(data))
	none(t, err)
	if clip := query.GetClip(); len(clip.Chunks) != 2 || clip.Temporal != v1.Temporal_TEMPORAL_GRU {
		t.Errorf("%v", clip)
	}
	broken := errors.New("broken")
	_, err = LikeClip(nil, Reader(iotest.ErrReader(broken)))
	want(t, err, broken)
}
