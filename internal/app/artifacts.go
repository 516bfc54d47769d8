package app

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/quicflow/quicflow/internal/artifact"
	"github.com/quicflow/quicflow/internal/service"
)

// openArtifacts opens the store of artifacts, and begins to remove what is not kept.
func (a *App) openArtifacts(ctx context.Context) error {
	c := a.cfg.Artifacts
	cfg := artifact.Config{
		Dir: cmp.Or(c.Dir, a.dir.file("artifacts")), Index: a.store, MaxBytes: int64(c.MaxBytes), Retention: c.Retention.Std(), Logger: a.logger,
	}
	if c.Store == "s3" {
		cfg.S3 = &artifact.S3{
			Endpoint: c.S3.Endpoint, Bucket: c.S3.Bucket, Region: c.S3.Region, Prefix: c.S3.Prefix, AccessKey: c.S3.AccessKey, Insecure: c.S3.Insecure,
		}
		if c.S3.SecretKeyFile != "" {
			secret, err := os.ReadFile(c.S3.SecretKeyFile)
			if err != nil {
				return fmt.Errorf("artifacts.s3.secret_key_file: %w", err)
			}
			cfg.S3.SecretKey = strings.TrimSpace(string(secret))
		}
	}
	var err error
	if a.artifacts, err = artifact.Open(cfg); err != nil {
		return err
	}
	return a.services.Start(ctx, service.Loop("retention of artifacts", a.artifacts.Run))
}
