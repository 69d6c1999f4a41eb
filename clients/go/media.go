package matchcut

import (
	"context"
	"crypto/sha256"
	"io"
	"os"

	v1 "matchcut/v1"
)

const (
	pieceSize  = 256 << 10 // bytes a message: few enough to start decoding early, enough that messages cost nothing
	pieceSmall = 4 << 10   // bytes; less room than that is not worth a read
)

// Media is what is to be decoded: File, Bytes or Reader make a container of it, Pictures and Frames what they say.
type Media struct {
	// Progress is called as bytes of a container leave, with how many have and how many there are (-1: unknown). Where a
	// call is sent again it tells only what goes beyond the try before. It runs in a goroutine of the call's, which waits
	// for it. It may cancel the context, Close a Live, and use a Dialogue but for Next; Close does not wait for it, nor
	// does a Dialogue's End. Nil: nobody is told.
	Progress func(sent, total int64)

	form func(*v1.MediaHeader)                      // makes the header say how the media comes
	open func() (pieces, error)                     // its pieces from the beginning
	stat func() (size int64, again bool, err error) // -1: unknown; whether open gives all of it again and again
}

// pieces are what is sent of media, one after the other; io.EOF tells that there are no more.
type pieces interface {
	next() (*v1.MediaChunk, error)
	close()
}

// File is the container in a file. It is hashed before it is sent, so that what the server has already costs no upload.
func File(path string) *Media {
	return &Media{
		form: containerForm,
		open: func() (pieces, error) {
			file, err := os.Open(path)
			if err != nil {
				return nil, err
			}
			return &readerPieces{from: file, closer: file}, nil
		},
		stat: func() (int64, bool, error) {
			info, err := os.Stat(path)
			if err != nil || !info.Mode().IsRegular() { // a pipe or a device
				return -1, false, err
			}
			return info.Size(), true, nil
		},
	}
}

// Bytes is a container in memory, which must not be changed while it is sent. It is hashed first, as a File is.
func Bytes(data []byte) *Media {
	return &Media{
		form: containerForm,
		open: func() (pieces, error) { return &bytesPieces{rest: data}, nil },
		stat: func() (int64, bool, error) { return int64(len(data)), true, nil },
	}
}

// Reader is a container that comes from a reader, for one call. What a Read gives is sent at once. The reader's error
// cancels the call, which returns that error. A Read under way when the call ends is not waited for; none follows it.
func Reader(reader io.Reader) *Media {
	return &Media{form: containerForm, open: once(&readerPieces{from: reader}), stat: unknown}
}

// Pictures are JPEG or PNG files, for one call; next makes them one after the other and returns io.EOF after the last.
// Any other error cancels the call, which returns it. next runs in a goroutine of the call's and is not waited for when
// the call ends.
func Pictures(next func() (*v1.Picture, error)) *Media {
	form := func(header *v1.MediaHeader) {
		header.Form = &v1.MediaHeader_Pictures{Pictures: &v1.PictureForm{}}
	}
	chunk := func() (*v1.MediaChunk, error) {
		picture, err := next()
		return &v1.MediaChunk{Payload: &v1.MediaChunk_Picture{Picture: picture}}, err
	}
	return &Media{form: form, open: once(funcPieces(chunk)), stat: unknown}
}

// Frames are decoded frames, all of the size and layout of form, for one call; next is as Pictures' is.
func Frames(size *v1.FrameForm, next func() (*v1.Frame, error)) *Media {
	form := func(header *v1.MediaHeader) {
		header.Form = &v1.MediaHeader_Frames{Frames: size}
	}
	chunk := func() (*v1.MediaChunk, error) {
		frame, err := next()
		return &v1.MediaChunk{Payload: &v1.MediaChunk_Frame{Frame: frame}}, err
	}
	return &Media{form: form, open: once(funcPieces(chunk)), stat: unknown}
}

// LikeClip reads a container and makes a query of it, of one message; clip may say how its frames are to be used.
func LikeClip(clip *v1.ClipQuery, media *Media) (*v1.Query, error) {
	query := &v1.ClipQuery{Media: media.header(clip.GetMedia()), Temporal: clip.GetTemporal()}
	from, err := media.open()
	if err != nil {
		return nil, err
	}
	defer from.close()
	for {
		chunk, err := from.next()
		if err == io.EOF {
			return &v1.Query{Source: &v1.Query_Clip{Clip: query}}, nil
		}
		if err != nil {
			return nil, err
		}
		query.Chunks = append(query.Chunks, chunk)
	}
}

// header is the caller's header, which may be nil, with the form that the media has.
func (m *Media) header(given *v1.MediaHeader) *v1.MediaHeader {
	header := &v1.MediaHeader{
		Form: given.GetForm(), Sampling: given.GetSampling(), Limits: given.GetLimits(), Segments: given.GetSegments(),
	}
	m.form(header)
	return header
}

// digest is the SHA-256 of a container that can be read again and again.
func (m *Media) digest(ctx context.Context) ([]byte, error) {
	from, err := m.open()
	if err != nil {
		return nil, err
	}
	defer from.close()
	hash := sha256.New()
	for ctx.Err() == nil {
		chunk, err := from.next()
		if err == io.EOF {
			return hash.Sum(nil), nil
		}
		if err != nil {
			return nil, err
		}
		hash.Write(chunk.GetData())
	}
	return nil, ctx.Err()
}

// containerForm leaves a format that the caller has named.
func containerForm(header *v1.MediaHeader) {
	if header.GetContainer() == nil {
		header.Form = &v1.MediaHeader_Container{Container: &v1.ContainerForm{}}
	}
}

func once(from pieces) func() (pieces, error) {
	return func() (pieces, error) { return from, nil }
}

func unknown() (int64, bool, error) {
	return -1, false, nil
}

type readerPieces struct {
	from   io.Reader
	closer io.Closer // nil: the reader is the caller's to close
	room   []byte    // what is sent is not written to again
}

func (p *readerPieces) next() (*v1.MediaChunk, error) {
	if len(p.room) < pieceSmall {
		p.room = make([]byte, pieceSize)
	}
	length, err := io.ReadAtLeast(p.from, p.room, 1)
	data := p.room[:length:length]
	p.room = p.room[length:]
	return &v1.MediaChunk{Payload: &v1.MediaChunk_Data{Data: data}}, err
}

func (p *readerPieces) close() {
	if p.closer != nil {
		p.closer.Close()
	}
}

type bytesPieces struct{ rest []byte }

func (p *bytesPieces) next() (*v1.MediaChunk, error) {
	if len(p.rest) == 0 {
		return nil, io.EOF
	}
	data := p.rest[:min(len(p.rest), pieceSize)]
	p.rest = p.rest[len(data):]
	return &v1.MediaChunk{Payload: &v1.MediaChunk_Data{Data: data}}, nil
}

func (p *bytesPieces) close() {}

type funcPieces func() (*v1.MediaChunk, error)

func (p funcPieces) next() (*v1.MediaChunk, error) { return p() }

func (p funcPieces) close() {}

func min(a, b int) int {
	if a < b {
		return a
	}
	return b
}
