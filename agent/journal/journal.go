// Package journal is an agent's memory of the steps it was asked for: the intent before the effect, the result before
// it is sent. What it says survives a crash of the agent and of the host.
package journal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
	"google.golang.org/protobuf/proto"

	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

// Errors of a journal.
var (
	// ErrFull means that the journal takes no new step until the hub has confirmed some; nothing was stored.
	ErrFull = errors.New("journal is full")
	// ErrNoDeadline means that a request carries no not_after, without which it could not be forgotten safely.
	ErrNoDeadline = errors.New("step request carries no not_after")
	// ErrInUse means that another process has the journal open.
	ErrInUse = errors.New("journal is in use by another process")
	// ErrSecrets means that a request still carries secrets, which a journal never takes.
	ErrSecrets = errors.New("step request carries secrets")
	// ErrUnknownStep means that the journal has no such step.
	ErrUnknownStep = errors.New("journal does not know the step")
)

// Config says where a journal lives and how much it holds.
type Config struct {
	// Path of the file, made if it does not exist. Required.
	Path string
	// MaxEntries bounds the steps whose result or logs the hub has not confirmed. Defaults to 10,000.
	MaxEntries int
	// MaxRemembered bounds the confirmed steps that are remembered until their not_after. Defaults to 100,000.
	MaxRemembered int
	// Margin is how long after its not_after a confirmed step is still remembered. Defaults to 24h.
	Margin time.Duration
	// NoSync leaves fsync out: for simulated agents, whose journal need not survive. Defaults to false.
	NoSync bool
	// Now defaults to time.Now.
	Now func() time.Time
}

// State is where a step stands.
type State int

// The states of a step.
const (
	New      State = iota // not known until now
	Running               // its intent is on disk, its result is not
	Finished              // its result is on disk
)

// Status is what a journal says about a step.
type Status struct {
	State  State
	Result *quicflowv1.StepResult // set when State is Finished; without its tails once the hub has confirmed it
}

// Entry is a step that is not finished, or whose result or logs the hub has not confirmed.
type Entry struct {
	StepID      string
	Request     *quicflowv1.StepRequest // nil for a tombstone
	Finished    bool
	ResultAcked bool
	LogAcked    uint64
	LogEnd      uint64 // when finished
}

// Journal is safe for concurrent use. Concurrent writes share one fsync.
type Journal struct {
	cfg        Config
	db         *bolt.DB
	id         string
	generation uint64
	copied     bool
}

// The buckets. The sequence of intents and of done is their number of entries.
var (
	metaBucket    = []byte("meta")    // journal id, generation, horizon, file
	intentsBucket = []byte("intents") // step id → not_after, request
	resultsBucket = []byte("results") // step id → result
	acksBucket    = []byte("acks")    // step id → result acked, log position acked
	doneBucket    = []byte("done")    // step id → result without tails, of confirmed steps
	expiryBucket  = []byte("expiry")  // not_after, step id → nothing; orders done

	idKey         = []byte("id")
	generationKey = []byte("generation")
	horizonKey    = []byte("horizon")
	fileKey       = []byte("file") // fileID
)

// Open opens or makes a journal and raises its generation.
func Open(cfg Config) (*Journal, error) {
	if cfg.Path == "" {
		return nil, errors.New("journal.Config.Path is empty")
	}
	if cfg.MaxEntries == 0 {
		cfg.MaxEntries = 10_000
	}
	if cfg.MaxRemembered == 0 {
		cfg.MaxRemembered = 100_000
	}
	if cfg.Margin == 0 {
		cfg.Margin = 24 * time.Hour
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	db, err := bolt.Open(cfg.Path, 0o600, &bolt.Options{
		Timeout: time.Second, NoSync: cfg.NoSync, NoGrowSync: cfg.NoSync, FreelistType: bolt.FreelistMapType,
	})
	if errors.Is(err, bolterrors.ErrTimeout) {
		return nil, fmt.Errorf("open %s: %w", cfg.Path, ErrInUse)
	}
	if err != nil {
		return nil, fmt.Errorf("open journal %s (if it is damaged, move it away: what ran meanwhile is then told as unknown): %w", cfg.Path, err)
	}
	db.MaxBatchDelay = 2 * time.Millisecond
	if cfg.NoSync {
		db.MaxBatchDelay = 0
	}
	j := &Journal{cfg: cfg, db: db}
	if err := db.Update(j.begin); err != nil {
		_ = db.Close()
		return nil, fmt.Errorf("open journal %s: %w", cfg.Path, err)
	}
	return j, nil
}

func (j *Journal) begin(tx *bolt.Tx) error {
	for _, name := range [][]byte{metaBucket, intentsBucket, resultsBucket, acksBucket, doneBucket, expiryBucket} {
		if _, err := tx.CreateBucketIfNotExists(name); err != nil {
			return err
		}
	}
	meta := tx.Bucket(metaBucket)
	// A copy that is put back in the original's place lacks what happened since it was made, and its generation need not show
	// that: it has become another journal.
	if file, ok := identify(j.cfg.Path); ok {
		known, ok := decodeFileID(meta.Get(fileKey))
		j.copied = ok && file.isCopyOf(known)
		text, err := file.encode()
		if err == nil {
			err = meta.Put(fileKey, text)
		}
		if err != nil {
			return err
		}
	}
	if meta.Get(idKey) == nil || j.copied {
		id, err := uuid.NewRandom()
		if err != nil {
			return err
		}
		if err := meta.Put(idKey, []byte(id.String())); err != nil {
			return err
		}
	}
	j.id = string(meta.Get(idKey))
	j.generation = number(meta.Get(generationKey)) + 1
	return meta.Put(generationKey, bytesOf(j.generation))
}

// ID is random and was made with the journal.
func (j *Journal) ID() string { return j.id }

// Copied says that the file is a copy of the journal that was last opened. It has a new id, and what it says of steps that
// are not finished may be out of date. What it knows it still answers.
func (j *Journal) Copied() bool { return j.copied }

// Generation rises each time the journal is opened.
func (j *Journal) Generation() uint64 { return j.generation }

// Close waits for running transactions.
func (j *Journal) Close() error { return j.db.Close() }

// Begin stores the intent to carry out a step, unless the journal knows the step already: then it changes nothing and
// says where that stands. New means that the intent is on disk now and that the caller, and nobody else ever, is to
// carry it out.
//
// A step that may not start any more is stored as finished: refused if it provably never started, unknown if the
// journal has forgotten steps as old as this one.
func (j *Journal) Begin(step *quicflowv1.StepRequest) (Status, error) {
	if step.NotAfterUnixMs <= 0 {
		return Status{}, ErrNoDeadline
	}
	if len(step.GetDeploy().GetSecrets()) > 0 {
		return Status{}, ErrSecrets
	}
	request, err := proto.Marshal(step)
	if err != nil {
		return Status{}, fmt.Errorf("encode step request: %w", err)
	}
	var status Status
	err = j.db.Batch(func(tx *bolt.Tx) error {
		known, err := lookup(tx, step.StepId)
		if err != nil || known.State != New {
			status = known
			return err
		}
		if late := j.tooLate(tx, step); late != nil {
			status = Status{State: Finished, Result: late}
			return j.tombstone(tx, late, step.NotAfterUnixMs)
		}
		status = Status{State: New}
		if err := j.room(tx); err != nil {
			return err
		}
		return putIntent(tx, step.StepId, step.NotAfterUnixMs, request, j.cfg.MaxEntries)
	})
	if err != nil {
		return Status{}, fmt.Errorf("store intent: %w", err)
	}
	return status, nil
}

// Ready says whether Begin would take a step as New, without storing anything. False may mean anything else.
func (j *Journal) Ready(step *quicflowv1.StepRequest) (ready bool, err error) {
	err = j.db.View(func(tx *bolt.Tx) error {
		known, err := lookup(tx, step.StepId)
		ready = err == nil && known.State == New && step.NotAfterUnixMs > 0 && j.tooLate(tx, step) == nil &&
			tx.Bucket(doneBucket).Sequence() < uint64(j.cfg.MaxRemembered) && tx.Bucket(intentsBucket).Sequence() < uint64(j.cfg.MaxEntries)
		return err
	})
	return ready, err
}

// Record stores intent and result of a step at once: for one without an effect, which may be carried out again if the agent
// dies before. It changes nothing for a step that is known, and says where that stands; New means that the result was stored.
func (j *Journal) Record(result *quicflowv1.StepResult, notAfter time.Time) (status Status, err error) {
	value, err := proto.Marshal(result)
	if err != nil {
		return Status{}, fmt.Errorf("encode step result: %w", err)
	}
	err = j.db.Batch(func(tx *bolt.Tx) error {
		if status, err = lookup(tx, result.StepId); err != nil || status.State != New {
			return err
		}
		if err := j.room(tx); err != nil {
			return err
		}
		if err := putIntent(tx, result.StepId, notAfter.UnixMilli(), nil, j.cfg.MaxEntries); err != nil {
			return err
		}
		return tx.Bucket(resultsBucket).Put([]byte(result.StepId), value)
	})
	if err != nil {
		return Status{}, fmt.Errorf("store result: %w", err)
	}
	return status, nil
}

// room makes sure that the step, once confirmed, can be remembered.
func (j *Journal) room(tx *bolt.Tx) error {
	if err := j.prune(tx); err != nil {
		return err
	}
	if tx.Bucket(doneBucket).Sequence() >= uint64(j.cfg.MaxRemembered) {
		return fmt.Errorf("%w: it remembers %d confirmed steps, as many as it may, until their not_after", ErrFull, j.cfg.MaxRemembered)
	}
	return nil
}

// Stats is how full a journal is.
type Stats struct {
	Entries    int   `json:"entries"`    // steps that run, or whose result or logs are not confirmed
	Remembered int   `json:"remembered"` // confirmed steps
	Bytes      int64 `json:"bytes"`      // of the file
}

// Stats counts.
func (j *Journal) Stats() (stats Stats, err error) {
	err = j.db.View(func(tx *bolt.Tx) error {
		stats = Stats{int(tx.Bucket(intentsBucket).Sequence()), int(tx.Bucket(doneBucket).Sequence()), tx.Size()}
		return nil
	})
	return stats, err
}

// tooLate gives the result of a step that must not start, nil for one that may.
func (j *Journal) tooLate(tx *bolt.Tx, step *quicflowv1.StepRequest) *quicflowv1.StepResult {
	now := j.cfg.Now().UnixMilli()
	result := &quicflowv1.StepResult{StepId: step.StepId, ExitCode: -1, FinishedUnixMs: now}
	switch {
	case step.NotAfterUnixMs <= int64(number(tx.Bucket(metaBucket).Get(horizonKey))):
		result.Outcome = quicflowv1.Outcome_OUTCOME_UNKNOWN
		result.Error = "the request is older than what the agent's journal remembers"
	case step.NotAfterUnixMs < now:
		result.Outcome = quicflowv1.Outcome_OUTCOME_REFUSED
		result.Error = "the request came too late: it was not to start after " +
			time.UnixMilli(step.NotAfterUnixMs).UTC().Format(time.RFC3339)
	default:
		return nil
	}
	return result
}

// Lookup says where a step stands, without storing anything.
func (j *Journal) Lookup(stepID string) (status Status, err error) {
	err = j.db.View(func(tx *bolt.Tx) error {
		status, err = lookup(tx, stepID)
		return err
	})
	return status, err
}

// Finish stores the result of a running step. The first result stays; a later one is ignored.
func (j *Journal) Finish(result *quicflowv1.StepResult) error {
	value, err := proto.Marshal(result)
	if err != nil {
		return fmt.Errorf("encode step result: %w", err)
	}
	err = j.db.Batch(func(tx *bolt.Tx) error {
		key := []byte(result.StepId)
		if tx.Bucket(intentsBucket).Get(key) == nil {
			return ErrUnknownStep
		}
		if tx.Bucket(resultsBucket).Get(key) != nil {
			return nil
		}
		return tx.Bucket(resultsBucket).Put(key, value)
	})
	if err != nil {
		return fmt.Errorf("store result: %w", err)
	}
	return nil
}

// Tombstone marks a step that is not known as finished with this result, so that it never starts. It changes nothing
// for a step that is known, and says where that stands; New means that the tombstone was stored. The step is
// remembered at least until notAfter. A step that was confirmed and forgotten gets a tombstone too: the hub has its
// result, and the first one counts.
func (j *Journal) Tombstone(result *quicflowv1.StepResult, notAfter time.Time) (status Status, err error) {
	err = j.db.Batch(func(tx *bolt.Tx) error {
		if status, err = lookup(tx, result.StepId); err != nil || status.State != New {
			return err
		}
		return j.tombstone(tx, result, notAfter.UnixMilli())
	})
	if err != nil {
		return Status{}, fmt.Errorf("store tombstone: %w", err)
	}
	return status, nil
}

func (j *Journal) tombstone(tx *bolt.Tx, result *quicflowv1.StepResult, notAfter int64) error {
	value, err := proto.Marshal(result)
	if err != nil {
		return err
	}
	// Twice the room: a full journal must still be able to promise that a step will not start.
	if err := putIntent(tx, result.StepId, notAfter, nil, 2*j.cfg.MaxEntries); err != nil {
		return err
	}
	return tx.Bucket(resultsBucket).Put([]byte(result.StepId), value)
}

func putIntent(tx *bolt.Tx, stepID string, notAfter int64, request []byte, limit int) error {
	intents := tx.Bucket(intentsBucket)
	if intents.Sequence() >= uint64(limit) {
		return fmt.Errorf("%w: %d steps run or wait for the server to confirm their results and logs; it takes no more than %d", ErrFull, intents.Sequence(), limit)
	}
	if err := intents.SetSequence(intents.Sequence() + 1); err != nil {
		return err
	}
	return intents.Put([]byte(stepID), append(bytesOf(uint64(notAfter)), request...))
}

func lookup(tx *bolt.Tx, stepID string) (Status, error) {
	key := []byte(stepID)
	value := tx.Bucket(resultsBucket).Get(key)
	if value == nil {
		value = tx.Bucket(doneBucket).Get(key)
	}
	if value != nil {
		result := new(quicflowv1.StepResult)
		if err := proto.Unmarshal(value, result); err != nil {
			return Status{}, fmt.Errorf("decode result of %s: %w", stepID, err)
		}
		return Status{State: Finished, Result: result}, nil
	}
	if tx.Bucket(intentsBucket).Get(key) != nil {
		return Status{State: Running}, nil
	}
	return Status{State: New}, nil
}

func number(b []byte) uint64 {
	if len(b) < 8 {
		return 0
	}
	return binary.BigEndian.Uint64(b)
}

func bytesOf(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }
