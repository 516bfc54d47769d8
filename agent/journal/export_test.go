package journal

import bolt "go.etcd.io/bbolt"

// Commits is how many transactions were written.
func (j *Journal) Commits() (n int) {
	_ = j.db.View(func(tx *bolt.Tx) error {
		n = tx.ID()
		return nil
	})
	return n
}
