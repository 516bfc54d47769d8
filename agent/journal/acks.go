package journal

import (
	"bytes"
	"fmt"

	bolt "go.etcd.io/bbolt"
	"google.golang.org/protobuf/proto"

	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

// Entries lists what is running, or not confirmed, in the order of the step ids.
func (j *Journal) Entries() ([]Entry, error) {
	var entries []Entry
	err := j.db.View(func(tx *bolt.Tx) error {
		return tx.Bucket(intentsBucket).ForEach(func(key, value []byte) error {
			e := Entry{StepID: string(key)}
			if request := value[8:]; len(request) > 0 {
				e.Request = new(quicflowv1.StepRequest)
				if err := proto.Unmarshal(request, e.Request); err != nil {
					return fmt.Errorf("decode request of %s: %w", key, err)
				}
			}
			status, err := lookup(tx, e.StepID)
			if err != nil {
				return err
			}
			if status.State == Finished {
				e.Finished, e.LogEnd = true, status.Result.LogEnd
			}
			e.ResultAcked, e.LogAcked = acked(tx, key)
			entries = append(entries, e)
			return nil
		})
	})
	return entries, err
}

// Ack is what the hub has confirmed of a step.
type Ack struct {
	StepID string
	Result bool   // its result is stored
	Log    uint64 // its spool is stored up to here
}

// Confirm notes what the hub has confirmed, and gives the ids of the steps that are gone: their result and all their
// logs are confirmed, so their spools can go too. A step that is not known counts as gone.
func (j *Journal) Confirm(acks []Ack) (gone []string, err error) {
	err = j.db.Batch(func(tx *bolt.Tx) error {
		gone = nil
		for _, ack := range acks {
			isGone, err := j.confirm(tx, ack)
			if err != nil {
				return err
			}
			if isGone {
				gone = append(gone, ack.StepID)
			}
		}
		return j.prune(tx)
	})
	if err != nil {
		return nil, fmt.Errorf("store acknowledgements: %w", err)
	}
	return gone, nil
}

func (j *Journal) confirm(tx *bolt.Tx, ack Ack) (gone bool, err error) {
	key := []byte(ack.StepID)
	intent := tx.Bucket(intentsBucket).Get(key)
	if intent == nil {
		return true, nil
	}
	status, err := lookup(tx, ack.StepID)
	if err != nil {
		return false, err
	}
	finished := status.State == Finished
	if finished && ack.Result && ack.Log >= status.Result.LogEnd {
		return true, forget(tx, key, number(intent), status.Result)
	}
	value := bytesOf(ack.Log)
	if finished && ack.Result {
		value = append(value, 1)
	}
	return false, tx.Bucket(acksBucket).Put(key, value)
}

func acked(tx *bolt.Tx, key []byte) (result bool, position uint64) {
	value := tx.Bucket(acksBucket).Get(key)
	return len(value) == 9, number(value)
}

// forget turns an entry into a memory of it, which lasts as long as the step could be asked for again.
func forget(tx *bolt.Tx, key []byte, notAfter uint64, result *quicflowv1.StepResult) error {
	result.StdoutTail, result.StderrTail = nil, nil
	memory, err := proto.Marshal(result)
	if err != nil {
		return err
	}
	for _, name := range [][]byte{intentsBucket, resultsBucket, acksBucket} {
		if err := tx.Bucket(name).Delete(key); err != nil {
			return err
		}
	}
	if err := addSequence(tx.Bucket(intentsBucket), -1); err != nil {
		return err
	}
	if err := tx.Bucket(doneBucket).Put(key, memory); err != nil {
		return err
	}
	if err := addSequence(tx.Bucket(doneBucket), 1); err != nil {
		return err
	}
	return tx.Bucket(expiryBucket).Put(append(bytesOf(notAfter), key...), nil)
}

// prune drops memories whose step cannot be asked for any more. The horizon keeps what was dropped: if the clock is
// set back, requests up to there are still not taken for new ones.
func (j *Journal) prune(tx *bolt.Tx) error {
	const most = 1000 // a transaction
	limit := bytesOf(uint64(j.cfg.Now().Add(-j.cfg.Margin).UnixMilli()))
	meta, done, expiry := tx.Bucket(metaBucket), tx.Bucket(doneBucket), tx.Bucket(expiryBucket)
	var old [][]byte
	c := expiry.Cursor()
	for key, _ := c.First(); key != nil && len(old) < most && bytes.Compare(key[:8], limit) < 0; key, _ = c.Next() {
		old = append(old, bytes.Clone(key))
	}
	if len(old) == 0 {
		return nil
	}
	for _, key := range old {
		if err := expiry.Delete(key); err != nil {
			return err
		}
		if err := done.Delete(key[8:]); err != nil {
			return err
		}
	}
	if err := addSequence(done, -len(old)); err != nil {
		return err
	}
	horizon := max(number(meta.Get(horizonKey)), number(old[len(old)-1]))
	return meta.Put(horizonKey, bytesOf(horizon))
}

func addSequence(b *bolt.Bucket, n int) error { return b.SetSequence(b.Sequence() + uint64(n)) }
