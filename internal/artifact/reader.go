package artifact

import (
	"context"
	"errors"
	"io"
)

// Reader reads an artifact at any place. What it reads from is opened when it is needed. It is for one goroutine, which closes it.
type Reader struct {
	ctx     context.Context
	store   *Store
	sum     string
	size    int64
	offset  int64
	content io.ReadCloser // at offset; nil: not open
}

var _ io.ReadSeekCloser = (*Reader)(nil)

// Reader gives a Reader at the beginning of an artifact. Its life is within ctx. Errors: those of OpenArtifact.
func (s *Store) Reader(ctx context.Context, sum string) (*Reader, error) {
	content, size, err := s.OpenArtifact(ctx, sum, 0)
	if err != nil {
		return nil, err
	}
	return &Reader{ctx: ctx, store: s, sum: sum, size: size, content: content}, nil
}

// Read reads on.
func (r *Reader) Read(p []byte) (int, error) {
	if r.content == nil {
		var err error
		if r.content, _, err = r.store.OpenArtifact(r.ctx, r.sum, r.offset); err != nil {
			return 0, err
		}
	}
	n, err := r.content.Read(p)
	r.offset += int64(n)
	return n, err
}

// Seek says where to read next.
func (r *Reader) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += r.offset
	case io.SeekEnd:
		offset += r.size
	}
	if offset < 0 || offset > r.size {
		return r.offset, errors.New("seek to a place outside of the artifact")
	}
	if offset == r.offset {
		return offset, nil
	}
	err := r.Close()
	r.offset = offset
	return offset, err
}

// Close ends the reading.
func (r *Reader) Close() error {
	if r.content == nil {
		return nil
	}
	err := r.content.Close()
	r.content = nil
	return err
}
