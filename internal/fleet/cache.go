package fleet

import (
	"bufio"
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/quicflow/quicflow/internal/release"
)

const (
	cacheSuffix = ".identities"
	// spare is how long a certificate must still hold to be worth using.
	spare = 24 * time.Hour
)

// Cache keeps the identities that clients got from one certificate authority: a file of lines of JSON, to which lines are
// only added. The first line is the key, the second the authorities to trust, and each further one a certificate; of several for
// one client the last counts. What a crash cut off at the end is dropped. One process has it open at a time.
type Cache struct {
	file  *os.File
	key   *ecdsa.PrivateKey
	roots [][]byte

	mu    sync.Mutex
	certs map[string][]byte
}

// line is one of a cache.
type line struct {
	Key      []byte    `json:"key,omitempty"`   // PKCS#8
	Roots    [][]byte  `json:"roots,omitempty"` // DER
	ID       string    `json:"id,omitempty"`
	NotAfter time.Time `json:"not_after,omitzero"`
	DER      []byte    `json:"der,omitempty"`
}

// CacheName is the name of the cache for the authority of this fingerprint.
func CacheName(fingerprint [32]byte) string { return fmt.Sprintf("%x", fingerprint[:8]) + cacheSuffix }

// LatestCache gives the cache in a directory that was written last, os.ErrNotExist if there is none.
func LatestCache(dir string) (string, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "*"+cacheSuffix))
	if err != nil {
		return "", err
	}
	latest, at := "", time.Time{}
	for _, path := range paths {
		if info, err := os.Stat(path); err == nil && info.ModTime().After(at) {
			latest, at = path, info.ModTime()
		}
	}
	if latest == "" {
		return "", fmt.Errorf("no identities in %s: %w", dir, os.ErrNotExist)
	}
	return latest, nil
}

// OpenCache opens a cache, or makes it with mode 0600.
func OpenCache(path string) (_ *Cache, err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("make directory of identities: %w", err)
	}
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open identities: %w", err)
	}
	defer func() {
		if err != nil {
			_ = file.Close()
		}
	}()
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, release.Conflict("another process uses the identities %s", path)
		}
		return nil, fmt.Errorf("lock identities: %w", err)
	}
	c := &Cache{file: file, certs: map[string][]byte{}}
	if err := c.load(); err != nil {
		return nil, fmt.Errorf("read identities %s: %w", path, err)
	}
	if c.key == nil {
		err = c.create()
	}
	if err != nil {
		return nil, fmt.Errorf("make identities %s: %w", path, err)
	}
	return c, nil
}

// load reads the lines and cuts off what follows the last whole one.
func (c *Cache) load() error {
	reader := bufio.NewReaderSize(c.file, 64<<10)
	whole, soon := int64(0), time.Now().Add(spare)
	for {
		text, err := reader.ReadBytes('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		var l line
		if err != nil || json.Unmarshal(text, &l) != nil {
			if err == nil && reader.Buffered() > 0 {
				return fmt.Errorf("damaged at byte %d; remove it, and the agents join again", whole)
			}
			break // torn, or the end
		}
		whole += int64(len(text))
		switch {
		case l.Key != nil:
			key, err := x509.ParsePKCS8PrivateKey(l.Key)
			if err != nil {
				return err
			}
			ec, ok := key.(*ecdsa.PrivateKey)
			if !ok {
				return errors.New("the key is not ECDSA")
			}
			c.key = ec
		case l.Roots != nil:
			c.roots = l.Roots
		case l.NotAfter.After(soon):
			c.certs[l.ID] = bytes.Clone(l.DER)
		default:
			delete(c.certs, l.ID)
		}
	}
	if err := c.file.Truncate(whole); err != nil {
		return err
	}
	_, err := c.file.Seek(whole, io.SeekStart)
	return err
}

func (c *Cache) create() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	c.key = key
	// Stored before the first use: when an answer gets lost, the same key asks again.
	if err := c.append(line{Key: der}); err != nil {
		return err
	}
	return c.file.Sync()
}

// append writes a line. c.mu is held, or no one else has c yet.
func (c *Cache) append(l line) error {
	text, err := json.Marshal(l)
	if err != nil {
		return err
	}
	_, err = c.file.Write(append(text, '\n'))
	return err
}

// Missing gives those ids that have no certificate which holds for another day.
func (c *Cache) Missing(ids []string) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var missing []string
	for _, id := range ids {
		if c.certs[id] == nil {
			missing = append(missing, id)
		}
	}
	return missing
}

func (c *Cache) signer() crypto.Signer { return c.key }

// add keeps a certificate.
func (c *Cache) add(id string, der []byte, roots [][]byte) error {
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.roots == nil {
		c.roots = roots
		if err := c.append(line{Roots: roots}); err != nil {
			return fmt.Errorf("store identity: %w", err)
		}
	}
	if err := c.append(line{ID: id, NotAfter: leaf.NotAfter, DER: der}); err != nil {
		return fmt.Errorf("store identity: %w", err)
	}
	c.certs[id] = der
	return nil
}

// Identities are all that there are now.
func (c *Cache) Identities() *Identities {
	c.mu.Lock()
	defer c.mu.Unlock()
	pool := x509.NewCertPool()
	for _, der := range c.roots {
		if root, err := x509.ParseCertificate(der); err == nil {
			pool.AddCert(root)
		}
	}
	certificates := make(map[string][]byte, len(c.certs))
	for id, der := range c.certs {
		certificates[id] = der
	}
	return NewIdentities(c.key, pool, certificates)
}

// Close writes what the kernel still holds.
func (c *Cache) Close() error {
	err := errors.Join(c.file.Sync(), c.file.Close())
	if err != nil {
		return fmt.Errorf("store identities: %w", err)
	}
	return nil
}
