package artifact

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

// S3 is a bucket of an S3-compatible storage.
type S3 struct {
	Endpoint  string // host or host:port. Required.
	Bucket    string // it must exist. Required.
	Region    string // Defaults to what the storage says.
	Prefix    string // of the names of objects. Defaults to none.
	AccessKey string // Defaults to AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY of the environment, or else the machine's role.
	SecretKey string
	Insecure  bool // plain HTTP
}

// partSize is what an object is uploaded in, in bytes: so much memory an upload takes.
const partSize = 16 << 20

// bucket keeps contents as objects, named PREFIX and the sum.
type bucket struct {
	S3
	client *minio.Core
}

func (s S3) open() (backend, error) {
	provider := credentials.NewStaticV4(s.AccessKey, s.SecretKey, "")
	if s.AccessKey == "" {
		provider = credentials.NewChainCredentials([]credentials.Provider{
			&credentials.EnvAWS{}, &credentials.IAM{Client: &http.Client{Timeout: 5 * time.Second}},
		})
	}
	client, err := minio.NewCore(s.Endpoint, &minio.Options{Creds: provider, Secure: !s.Insecure, Region: s.Region, MaxRetries: 3})
	if err != nil {
		return nil, fmt.Errorf("artifacts.s3: %w", err)
	}
	return bucket{s, client}, nil
}

func (b bucket) put(ctx context.Context, sum string, file *os.File, size int64) error {
	// The library reads parts at any place of it; of what is empty it has to know that at once.
	content := io.Reader(io.NewSectionReader(file, 0, size))
	if size == 0 {
		content = bytes.NewReader(nil)
	}
	// Without a signature of the content, which not every storage knows of parts. Agents check what they get in any case.
	_, err := b.client.Client.PutObject(ctx, b.Bucket, b.Prefix+sum, content, size, minio.PutObjectOptions{
		ContentType: "application/octet-stream", PartSize: partSize, NumThreads: 2, DisableContentSha256: true,
	})
	return explain(err)
}

func (b bucket) open(ctx context.Context, sum string, offset int64) (io.ReadCloser, int64, error) {
	info, err := b.client.StatObject(ctx, b.Bucket, b.Prefix+sum, minio.StatObjectOptions{})
	if err != nil {
		return nil, 0, explain(err)
	}
	switch {
	case offset > info.Size:
		return nil, 0, errOffset
	case offset == info.Size:
		return http.NoBody, info.Size, nil
	}
	var options minio.GetObjectOptions
	if offset > 0 {
		if err := options.SetRange(offset, 0); err != nil {
			return nil, 0, err
		}
	}
	content, _, _, err := b.client.GetObject(ctx, b.Bucket, b.Prefix+sum, options)
	if err != nil {
		return nil, 0, explain(err)
	}
	return content, info.Size, nil
}

func (b bucket) remove(ctx context.Context, sum string) error {
	return explain(b.client.RemoveObject(ctx, b.Bucket, b.Prefix+sum, minio.RemoveObjectOptions{}))
}

func (b bucket) each(ctx context.Context, f func(string, time.Time) error) error {
	ctx, cancel := context.WithCancel(ctx) // ends the listing, whatever f says
	defer cancel()
	for object := range b.client.Client.ListObjects(ctx, b.Bucket, minio.ListObjectsOptions{Prefix: b.Prefix, Recursive: true}) {
		if object.Err != nil {
			return explain(object.Err)
		}
		sum := strings.TrimPrefix(object.Key, b.Prefix)
		if Check(sum) != nil {
			continue // nothing of ours
		}
		if err := f(sum, object.LastModified); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// explain says what an answer of the storage means.
func explain(err error) error {
	if err == nil {
		return nil
	}
	var answer minio.ErrorResponse
	if !errors.As(err, &answer) {
		return fmt.Errorf("reach the storage: %w", err)
	}
	if answer.Code == minio.NoSuchKey {
		return fs.ErrNotExist
	}
	return fmt.Errorf("the storage says %s: %s", answer.Code, answer.Message)
}
