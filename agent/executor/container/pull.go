package container

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/moby/moby/api/pkg/authconfig"
	"github.com/moby/moby/api/types/registry"
	"github.com/moby/moby/client"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/quicflow/quicflow/internal/release"
)

const (
	pullReport = 2 * time.Second // between two lines of a pull's progress

	pullAlways  = "always"
	pullMissing = "missing"
	pullNever   = "never"
)

// pull sees that the engine has the image, as the policy says.
func (d *deployment) pull(ctx context.Context) error {
	w, policy := d.wanted, d.spec.PullPolicy
	if policy == "" {
		policy = pullAlways
		if w.digest {
			policy = pullMissing
		}
	}
	if policy != pullAlways {
		image, err := d.engine.image(ctx, w.reference)
		switch {
		case err != nil:
			return err
		case image != nil && fits(image, w.platform):
			d.Tools.Printf("image %s is there: %s", w.reference, image.ID)
			return nil
		case policy == pullNever && image != nil:
			return fmt.Errorf("image %s: the one on this host is for another platform, and pull_policy is never", w.reference)
		case policy == pullNever:
			return fmt.Errorf("image %s: not on this host, and pull_policy is never", w.reference)
		}
	}
	options := client.ImagePullOptions{}
	if w.platform != nil {
		options.Platforms = []ocispec.Platform{*w.platform}
	}
	if r := d.spec.Registry; r != nil && (r.Username != "" || r.Password != "") {
		var err error
		if options.RegistryAuth, err = login(r, w.domain); err != nil {
			return err
		}
	}
	d.Tools.Printf("pulling image %s", w.reference)
	begun := time.Now()
	err := d.engine.retry(ctx, func() error { return d.pullOnce(ctx, options) })
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		d.logFull(err)
		return pullError(w.reference, options.RegistryAuth != "", whole(err))
	}
	image, err := d.engine.image(ctx, w.reference)
	if err != nil {
		return err
	}
	if image == nil {
		return fmt.Errorf("image %s: it was pulled, and is gone again", w.reference)
	}
	if !fits(image, w.platform) { // older engines take what there is
		return fmt.Errorf("image %s: not there for this platform, only for %s/%s", w.reference, image.Os, image.Architecture)
	}
	d.Tools.Printf("image %s is there after %s: %s", w.reference, time.Since(begun).Round(10*time.Millisecond), image.ID)
	return nil
}

func login(r *release.RegistryAuth, domain string) (string, error) {
	server := r.Server
	if server == "" {
		server = domain
	}
	text, err := authconfig.Encode(registry.AuthConfig{Username: r.Username, Password: r.Password, ServerAddress: server})
	if err != nil {
		return "", fmt.Errorf("write the registry's login: %w", err)
	}
	return text, nil
}

// fits says whether an image is for a platform; nil is any.
func fits(image *client.ImageInspectResult, p *ocispec.Platform) bool {
	return p == nil || image.Os == p.OS && image.Architecture == p.Architecture && (p.Variant == "" || image.Variant == p.Variant)
}

// pullOnce pulls, and tells of it as it goes on.
func (d *deployment) pullOnce(ctx context.Context, options client.ImagePullOptions) error {
	stream, err := d.engine.api.ImagePull(ctx, d.wanted.reference, options)
	if err != nil {
		return err
	}
	defer stream.Close()
	var p progress
	for message, err := range stream.JSONMessages(ctx) {
		switch {
		case err != nil:
			return err
		case message.Error != nil:
			return message.Error
		}
		size := [2]int64{}
		if message.Progress != nil {
			size = [2]int64{message.Progress.Current, message.Progress.Total}
		}
		if line := p.add(message.ID, message.Status, size, time.Now()); line != "" {
			d.Tools.Printf("%s", line)
		}
	}
	return nil
}

// progress sums up what the engine tells of an image's layers.
type progress struct {
	layers map[string]*layer
	told   time.Time
}

type layer struct {
	done        bool
	got, needed int64
}

// add gives a line from time to time, "" otherwise.
func (p *progress) add(id, status string, size [2]int64, now time.Time) string {
	if p.layers == nil {
		p.layers, p.told = map[string]*layer{}, now
	}
	switch status {
	case "Pulling fs layer", "Waiting", "Downloading", "Verifying Checksum", "Download complete", "Extracting", "Pull complete", "Already exists":
	default:
		return ""
	}
	l := p.layers[id]
	if l == nil {
		l = &layer{}
		p.layers[id] = l
	}
	switch status {
	case "Downloading":
		l.got, l.needed = size[0], max(size[1], l.needed)
	case "Download complete":
		l.got = l.needed
	case "Pull complete", "Already exists":
		l.got, l.done = l.needed, true
	}
	if now.Sub(p.told) < pullReport {
		return ""
	}
	p.told = now
	done, got, needed := 0, int64(0), int64(0)
	for _, l := range p.layers {
		got, needed = got+l.got, needed+l.needed
		if l.done {
			done++
		}
	}
	return fmt.Sprintf("pulling: %d of %d layers, %.1f of %.1f MB", done, len(p.layers), float64(got)/1e6, float64(needed)/1e6)
}

// whole gives the error that was made short.
func whole(err error) error {
	var p *problem
	if errors.As(err, &p) && p.cause != nil {
		return p.cause
	}
	return err
}

// logFull writes all that an error says, where its line is only a part.
func (d *deployment) logFull(err error) {
	if text := strings.TrimSpace(whole(err).Error()); text != "" {
		d.Tools.Printf("the Docker engine says: %s", text)
	}
}
