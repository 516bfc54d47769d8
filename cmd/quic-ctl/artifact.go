package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/quicflow/quicflow/internal/apiclient"
)

// keepTimeout is how long a server may take to keep an artifact that it has received, as it may have to send it on.
const keepTimeout = 15 * time.Minute

func (c *cli) artifact() *cobra.Command {
	artifacts := group("artifact", "Upload the files that versions bring to their hosts", c.artifactUpload(), c.artifactList(), c.artifactDownload(), c.artifactDelete())
	artifacts.Aliases = []string{"artifacts"}
	return artifacts
}

func (c *cli) artifactUpload() *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use: "upload FILE", Short: "Upload a file, and print what a version says to bring it to its hosts", Args: cobra.ExactArgs(1),
		Example: "  quic-ctl artifact upload dist/shop-2.0.tar.gz",
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := c.apiThatWaits(keepTimeout)
			if err != nil {
				return err
			}
			if name == "" {
				name = filepath.Base(args[0])
			}
			a, err := c.upload(cmd.Context(), api, args[0], name)
			if err != nil {
				return err
			}
			if c.json() {
				return c.writeJSON(a)
			}
			fmt.Fprintf(c.out, "%s\n\n%s", a.Sha256, artifactYAML(name, a.Sha256))
			return nil
		},
	}
	cmd.Flags().StringVar(&name, "name", "", "name of the artifact (default: that of the file)")
	return cmd
}

// upload sends a file, unless the server has it already.
func (c *cli) upload(ctx context.Context, api *apiclient.API, path, name string) (a apiclient.StoredArtifact, err error) {
	file, err := os.Open(path)
	if err != nil {
		return a, err
	}
	defer func() { _ = file.Close() }()
	info, err := file.Stat()
	if err != nil {
		return a, err
	}
	if !info.Mode().IsRegular() {
		return a, fmt.Errorf("%s is not a file; pack a directory first, such as with tar", path)
	}
	reading := c.meter("reading", info.Size())
	sum, _, err := sumOf(ctx, reading.reader(file))
	reading.end()
	if err != nil {
		return a, fmt.Errorf("read %s: %w", path, err)
	}
	there, err := apiclient.Read[apiclient.StoredArtifact](api.GetArtifact(ctx, sum))
	if err == nil && there.Name == name {
		fmt.Fprintln(c.err, "The server has it already.")
		return there, nil
	}
	if err != nil && apiclient.StatusOf(err) != http.StatusNotFound {
		return a, err
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return a, fmt.Errorf("read %s: %w", path, err)
	}
	sending := c.meter("uploading", info.Size())
	defer sending.end()
	size := func(_ context.Context, r *http.Request) error {
		r.ContentLength = info.Size() // so that the server can say at once that it is too much
		return nil
	}
	return apiclient.Read[apiclient.StoredArtifact](api.UploadArtifactWithBody(ctx,
		&apiclient.UploadArtifactParams{Name: &name, Sha256: &sum}, "application/octet-stream", sending.reader(file), size))
}

// sumOf takes the SHA-256 of what comes.
func sumOf(ctx context.Context, from io.Reader) (sum string, size int64, err error) {
	h := sha256.New()
	size, err = io.Copy(h, untilDone{ctx, from})
	return hex.EncodeToString(h.Sum(nil)), size, err
}

// untilDone reads no longer than a context lives.
type untilDone struct {
	ctx  context.Context
	from io.Reader
}

func (u untilDone) Read(p []byte) (int, error) {
	if u.ctx.Err() != nil {
		return 0, context.Cause(u.ctx)
	}
	return u.from.Read(p)
}

// artifactYAML is what a version says of an artifact.
func artifactYAML(name, sum string) string {
	text := "script:\n  artifacts:\n    - name: " + strconv.Quote(name) + "\n      sha256: \"" + sum + "\"\n" // in quotes, as it may look like a number
	for _, format := range []struct{ unpack, suffixes string }{
		{"tar.gz", ".tar.gz .tgz"}, {"tar.zst", ".tar.zst"}, {"tar", ".tar"}, {"zip", ".zip"},
	} {
		for suffix := range strings.FieldsSeq(format.suffixes) {
			if strings.HasSuffix(strings.ToLower(name), suffix) {
				return text + "      unpack: " + format.unpack + "\n"
			}
		}
	}
	return text
}

func (c *cli) artifactList() *cobra.Command {
	var search string
	var unused bool
	cmd := &cobra.Command{Use: "list", Short: "List artifacts, the newest first", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		api, err := c.api()
		if err != nil {
			return err
		}
		found, err := findArtifacts(cmd.Context(), api, search, unused)
		if err != nil {
			return err
		}
		return list(c, found, []string{"NAME", "SIZE", "VERSIONS", "UPLOADED", "BY", "SHA256"}, func(a apiclient.StoredArtifact) []string {
			return []string{a.Name, byteCount(a.Size), strconv.FormatInt(a.Versions, 10), ago(a.CreatedAt), a.CreatedBy, a.Sha256}
		})
	}}
	cmd.Flags().StringVar(&search, "search", "", "only those with this in their name, or that their SHA-256 begins with")
	cmd.Flags().BoolVar(&unused, "unused", false, "only those that no version uses")
	return cmd
}

func findArtifacts(ctx context.Context, api *apiclient.API, search string, unused bool) ([]apiclient.StoredArtifact, error) {
	return pages(ctx, 0, func(ctx context.Context, limit, offset int64) ([]apiclient.StoredArtifact, error) {
		answer, err := apiclient.Read[apiclient.ArtifactList](api.ListArtifacts(ctx, &apiclient.ListArtifactsParams{
			Search: apiclient.Optional(search), Unused: apiclient.Optional(unused), Limit: &limit, Offset: &offset,
		}))
		return answer.Artifacts, err
	})
}

// findArtifact gives the one artifact that a person means by its SHA-256, the beginning of that, or its name.
func findArtifact(ctx context.Context, api *apiclient.API, ref string) (apiclient.StoredArtifact, error) {
	none := apiclient.StoredArtifact{}
	found, err := findArtifacts(ctx, api, ref, false)
	if err != nil {
		return none, err
	}
	var meant []apiclient.StoredArtifact
	for _, a := range found {
		if strings.HasPrefix(a.Sha256, strings.ToLower(ref)) || a.Name == ref {
			meant = append(meant, a)
		}
	}
	switch len(meant) {
	case 0:
		return none, fmt.Errorf("there is no artifact %q", ref)
	case 1:
		return meant[0], nil
	}
	return none, fmt.Errorf("%d artifacts are called %q; give the SHA-256: quic-ctl artifact list --search %[2]q", len(meant), ref)
}

func (c *cli) artifactDownload() *cobra.Command {
	return &cobra.Command{
		Use: "download ARTIFACT [FILE]", Short: "Download an artifact and check it; FILE may be - for the standard output", Args: cobra.RangeArgs(1, 2),
		Long: "Download an artifact and check it. ARTIFACT is its SHA-256, the beginning of that, or its name.\n" +
			"FILE may be - for the standard output; without it, the file is named as the artifact is.",
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := c.api()
			if err != nil {
				return err
			}
			a, err := findArtifact(cmd.Context(), api, args[0])
			if err != nil {
				return err
			}
			path := filepath.Base(a.Name)
			if a.Name == "" || path == "." || path == ".." || path == string(filepath.Separator) {
				path = a.Sha256
			}
			if len(args) == 2 {
				path = args[1]
			}
			return c.download(cmd.Context(), api, a, path)
		},
	}
}

func (c *cli) download(ctx context.Context, api *apiclient.API, a apiclient.StoredArtifact, path string) (err error) {
	out := c.out
	var file *os.File
	if path != "-" {
		if file, err = os.CreateTemp(filepath.Dir(path), ".artifact-*"); err != nil {
			return err
		}
		defer func() {
			if err := os.Remove(file.Name()); err != nil && !errors.Is(err, fs.ErrNotExist) {
				fmt.Fprintln(c.err, err)
			}
		}()
		out = file
	}
	response, err := api.DownloadArtifact(ctx, a.Sha256)
	if err == nil && response.StatusCode == http.StatusOK {
		loading := c.meter("downloading", a.Size)
		var sum string
		sum, _, err = sumOf(ctx, io.TeeReader(loading.reader(response.Body), out))
		loading.end()
		err = errors.Join(err, response.Body.Close())
		if err == nil && sum != a.Sha256 {
			err = fmt.Errorf("checksum mismatch: what came has SHA-256 %s", sum)
		}
	} else {
		err = apiclient.Done(response, err)
	}
	if file == nil {
		return err
	}
	if err := errors.Join(err, file.Chmod(0o644), file.Close()); err != nil {
		return err
	}
	if err := os.Rename(file.Name(), path); err != nil {
		return err
	}
	fmt.Fprintf(c.err, "%s: %s\n", path, byteCount(a.Size))
	return nil
}

func (c *cli) artifactDelete() *cobra.Command {
	return &cobra.Command{
		Use: "delete ARTIFACT...", Short: "Delete artifacts that no version uses", Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := c.api()
			if err != nil {
				return err
			}
			for _, ref := range args {
				a, err := findArtifact(cmd.Context(), api, ref)
				if err != nil {
					return err
				}
				if err := apiclient.Done(api.DeleteArtifact(cmd.Context(), a.Sha256)); err != nil {
					return fmt.Errorf("%s: %w", ref, err)
				}
				fmt.Fprintf(c.out, "%s deleted\n", printable(a.Sha256))
			}
			return nil
		},
	}
}

// byteCount writes a number of bytes as a person would say it.
func byteCount(n int64) string {
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	value, unit := float64(n)/1024, 0
	for value >= 1024 && unit < len("KMGT")-1 {
		value, unit = value/1024, unit+1
	}
	return fmt.Sprintf("%.1f %ciB", value, "KMGT"[unit])
}

// meterEvery is how often a meter is drawn.
const meterEvery = 100 * time.Millisecond

// meter shows on a terminal how far a file is.
type meter struct {
	c     *cli
	what  string
	total int64
	done  int64
	began time.Time
	drawn time.Time
	live  bool
}

func (c *cli) meter(what string, total int64) *meter {
	return &meter{c: c, what: what, total: total, began: time.Now(), live: isTerminal(c.err) && !c.plain && !c.json()}
}

// reader counts what is read from r.
func (m *meter) reader(r io.Reader) io.Reader { return meteredReader{m, r} }

type meteredReader struct {
	m *meter
	r io.Reader
}

func (r meteredReader) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	r.m.add(int64(n))
	return n, err
}

func (m *meter) add(n int64) {
	m.done += n
	if now := time.Now(); m.live && now.Sub(m.drawn) >= meterEvery {
		m.drawn = now
		fmt.Fprint(m.c.err, "\r\x1b[K"+m.line(now))
	}
}

// line is such as "uploading ██████░░░░ 62% of 1.2 GiB, 110.3 MiB/s".
func (m *meter) line(now time.Time) string {
	rate := float64(m.done) / max(now.Sub(m.began).Seconds(), 0.001)
	percent := int64(100)
	if m.total > 0 {
		percent = min(100, m.done*100/m.total)
	}
	return fmt.Sprintf("%s %s %d%% of %s, %s/s", m.what, bar(m.done, m.total, 24), percent, byteCount(m.total), byteCount(int64(rate)))
}

// end clears the line.
func (m *meter) end() {
	if m.live && !m.drawn.IsZero() {
		fmt.Fprint(m.c.err, "\r\x1b[K")
	}
}
