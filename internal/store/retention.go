package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/quicflow/quicflow/internal/release"
)

const (
	// removeBatch is how many rows one transaction removes: those that write wait no longer than for that.
	removeBatch = 1000
	// jobsAtATime is how many jobs are looked at, and deleted, at a time.
	jobsAtATime = 100
	// keepShare is what a log that grew too large is cut down to, in percent, so that this is not done all the time.
	keepShare = 90
)

// Removed counts what was removed.
type Removed struct {
	Logs    int   // of so many tasks and jobs
	Records int64 // of them
	Bytes   int64 // of their data
}

func (r *Removed) add(records, bytes int64) {
	r.Records += records
	r.Bytes += bytes
}

// logCut is what of a log is gone.
type logCut struct {
	Seq       int64 `db:"seq"`
	Bytes     int64 `db:"bytes"`
	CutSeq    int64 `db:"cut_seq"`
	CutBytes  int64 `db:"cut_bytes"`
	CutAt     int64 `db:"cut_at"`
	RemovedAt int64 `db:"removed_at"`
}

func (c conn) logCut(ctx context.Context, taskID, lock string) (cut logCut, err error) {
	err = c.get(ctx, &cut, `SELECT seq, bytes, cut_seq, cut_bytes, cut_at, removed_at FROM task_log_heads WHERE task_id = ?`+lock, taskID)
	return cut, err
}

// cutNotice gives the record that stands for all that is gone of a log; its Seq is 0 if nothing is.
func (s *Store) cutNotice(ctx context.Context, taskID string) (release.LogRecord, error) {
	cut, err := s.read().logCut(ctx, taskID, "")
	if errors.Is(err, sql.ErrNoRows) || err == nil && cut.CutSeq == 0 {
		return release.LogRecord{}, nil
	}
	if err != nil {
		return release.LogRecord{}, fmt.Errorf("read log head: %w", err)
	}
	notice := release.LogRecord{TaskID: taskID, Seq: cut.CutSeq, Stream: release.StreamSystem}
	if cut.RemovedAt != 0 {
		notice.Time = fromMicros(cut.RemovedAt)
		notice.Data = fmt.Appendf(nil, "logs were removed by retention at %s (logs.retention)\n", notice.Time.Format(time.RFC3339))
	} else {
		notice.Time = fromMicros(cut.CutAt)
		notice.Data = fmt.Appendf(nil, "%d bytes cut by logs.max_bytes\n", cut.CutBytes)
	}
	return notice, nil
}

// RemoveLogs removes the logs of tasks and jobs that finished after one moment and not after another. Whoever reads them is
// told so. It takes many small transactions, and gives those that write as much time as it takes itself.
func (s *Store) RemoveLogs(ctx context.Context, after, upTo time.Time) (removed Removed, err error) {
	for _, table := range []string{"tasks", "jobs"} {
		var ids []string
		if err := s.read().list(ctx, &ids, `SELECT task_id FROM `+table+` JOIN task_log_heads ON task_id = id
			WHERE finished_at > ? AND finished_at <= ? AND cut_seq < seq ORDER BY finished_at`, micros(after), micros(upTo)); err != nil {
			return removed, fmt.Errorf("find old logs: %w", err)
		}
		for _, id := range ids {
			if err := s.removeLog(ctx, id, &removed); err != nil {
				return removed, err
			}
		}
	}
	return removed, nil
}

func (s *Store) removeLog(ctx context.Context, taskID string, removed *Removed) error {
	records := removed.Records
	err := s.inPieces(ctx, func() (more bool, err error) {
		return s.cutPiece(ctx, taskID, 0, removed)
	})
	if removed.Records > records {
		removed.Logs++
	}
	return err
}

// TrimLogs cuts the logs that have more than MaxLogBytes of data, from their beginning on: those that grew since the last
// call, or all that there are.
func (s *Store) TrimLogs(ctx context.Context, all bool) (removed Removed, err error) {
	limit := s.config.MaxLogBytes
	ids := s.large.take()
	if limit == 0 {
		return removed, nil
	}
	if all {
		if err := s.read().list(ctx, &ids, `SELECT task_id FROM task_log_heads WHERE bytes > ?`, limit); err != nil {
			return removed, fmt.Errorf("find large logs: %w", err)
		}
	}
	for _, id := range ids {
		records := removed.Records
		if err := s.inPieces(ctx, func() (more bool, err error) { return s.cutPiece(ctx, id, limit, &removed) }); err != nil {
			return removed, err
		}
		if removed.Records > records {
			removed.Logs++
		}
	}
	return removed, nil
}

// cutPiece removes the oldest records of a log: as many as lead to keepShare of limit bytes if it has more than these, or
// all with a limit of 0; no more than removeBatch. It says whether it has to be called again.
func (s *Store) cutPiece(ctx context.Context, taskID string, limit int64, removed *Removed) (more bool, err error) {
	var records, bytes int64
	err = s.write(ctx, "remove logs", func(tx conn) error {
		records, bytes, more = 0, 0, false
		cut, err := tx.logCut(ctx, taskID, tx.dialect.lock)
		if errors.Is(err, sql.ErrNoRows) {
			return nil // the job is gone
		}
		if err != nil {
			return err
		}
		excess := cut.Bytes
		if limit > 0 {
			if excess = cut.Bytes - limit/100*keepShare; excess <= 0 {
				return nil
			}
		}
		var sizes []struct {
			Seq  int64 `db:"seq"`
			Size int64 `db:"size"`
		}
		if err := tx.list(ctx, &sizes, `SELECT seq, LENGTH(data) AS size FROM task_logs WHERE task_id = ? AND seq > ? ORDER BY seq LIMIT ?`,
			taskID, cut.CutSeq, removeBatch); err != nil {
			return err
		}
		last := cut.CutSeq
		for _, r := range sizes {
			if limit > 0 && bytes >= excess {
				break
			}
			last, bytes = r.Seq, bytes+r.Size
			records++
		}
		more = last < cut.Seq && (limit == 0 || bytes < excess)
		if len(sizes) == 0 {
			last, bytes, more = cut.Seq, cut.Bytes, false
		}
		if _, err := tx.exec(ctx, `DELETE FROM task_logs WHERE task_id = ? AND seq > ? AND seq <= ?`, taskID, cut.CutSeq, last); err != nil {
			return err
		}
		now := micros(s.now())
		if limit == 0 {
			_, err = tx.exec(ctx, `UPDATE task_log_heads SET cut_seq = ?, bytes = bytes - ?, removed_at = ? WHERE task_id = ?`, last, bytes, now, taskID)
		} else {
			_, err = tx.exec(ctx, `UPDATE task_log_heads SET cut_seq = ?, bytes = bytes - ?, cut_bytes = cut_bytes + ?, cut_at = ? WHERE task_id = ?`,
				last, bytes, bytes, now, taskID)
		}
		return err
	})
	if err != nil {
		return false, err
	}
	removed.add(records, bytes)
	return more, nil
}

// oldJob is a job to delete.
type oldJob struct {
	Num     int64  `db:"num"`
	ID      string `db:"id"`
	Total   int64  `db:"total"`
	Records int64  `db:"records"` // of its log
}

// DeleteOldJobs deletes the jobs that finished before a moment, with their results and logs, and says how many. Like
// RemoveLogs, it takes many small transactions.
func (s *Store) DeleteOldJobs(ctx context.Context, before time.Time) (deleted int, removed Removed, err error) {
	err = s.inPieces(ctx, func() (more bool, err error) {
		var jobs []oldJob
		if err := s.read().list(ctx, &jobs, `SELECT num, id, total, COALESCE(seq - cut_seq, 0) AS records FROM jobs LEFT JOIN task_log_heads ON task_id = id
			WHERE finished_at > 0 AND finished_at < ? ORDER BY finished_at LIMIT ?`, micros(before), jobsAtATime); err != nil {
			return false, fmt.Errorf("find old jobs: %w", err)
		}
		gone := 0
		for len(jobs) > 0 {
			looked, n, err := s.deleteSome(ctx, jobs, &removed)
			if err != nil {
				return false, err
			}
			jobs = jobs[looked:]
			gone += n
		}
		deleted += gone
		return gone > 0, nil
	})
	return deleted, removed, err
}

// deleteSome deletes the first of some jobs: one that is large in pieces, or as many as make one piece. It says how many
// it looked at, and how many are gone.
func (s *Store) deleteSome(ctx context.Context, jobs []oldJob, removed *Removed) (looked, gone int, err error) {
	if first := jobs[0]; first.Total+first.Records > removeBatch {
		if err := s.emptyJob(ctx, first, removed); err != nil {
			return 0, 0, err
		}
		jobs[0].Total, jobs[0].Records = 0, 0
	}
	rows, records := int64(0), int64(0)
	var ids []string
	for _, j := range jobs {
		if rows += j.Total + j.Records; rows > removeBatch {
			break
		}
		ids, records = append(ids, j.ID), records+j.Records
	}
	if gone, err = s.DeleteJobs(ctx, ids); err == nil {
		removed.add(records, 0)
	}
	return len(ids), gone, err
}

// emptyJob removes what hangs on a job, the log and most rows first.
func (s *Store) emptyJob(ctx context.Context, j oldJob, removed *Removed) error {
	if err := s.removeLog(ctx, j.ID, removed); err != nil {
		return err
	}
	for _, q := range []struct {
		statement string
		args      []any
	}{
		{`DELETE FROM step_logs WHERE step_id IN (SELECT step_id FROM step_logs WHERE step_id > ? AND step_id < ? ORDER BY step_id LIMIT ?)`, []any{j.ID + "/", j.ID + "0"}},
		{`DELETE FROM job_targets WHERE job = ? AND client_id IN (SELECT client_id FROM job_targets WHERE job = ? ORDER BY client_id LIMIT ?)`, []any{j.Num, j.Num}},
	} {
		err := s.inPieces(ctx, func() (more bool, err error) {
			var n int64
			err = s.write(ctx, "delete old job", func(tx conn) (err error) {
				n, err = tx.exec(ctx, q.statement, append(q.args, removeBatch)...)
				return err
			})
			return n == removeBatch, err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// inPieces calls do until there is no more to do, and waits after each call for as long as it took, at most maxRest.
func (s *Store) inPieces(ctx context.Context, do func() (more bool, err error)) error {
	const maxRest = 100 * time.Millisecond
	for {
		began := time.Now()
		more, err := do()
		if err != nil || !more {
			return err
		}
		rest := time.NewTimer(min(time.Since(began), maxRest))
		select {
		case <-rest.C:
		case <-ctx.Done():
			rest.Stop()
			return context.Cause(ctx)
		}
	}
}

// largeLogs are the logs that have grown beyond what may be, by this process.
type largeLogs struct {
	wake chan struct{} // buffered

	mu  sync.Mutex
	ids map[string]bool
}

func newLargeLogs() largeLogs {
	return largeLogs{wake: make(chan struct{}, 1), ids: map[string]bool{}}
}

// note remembers those of the logs, given by their sizes, that are larger than limit; 0 is no limit.
func (l *largeLogs) note(sizes map[string]int64, limit int64) {
	if limit == 0 {
		return
	}
	for id, size := range sizes {
		if size <= limit {
			continue
		}
		l.mu.Lock()
		l.ids[id] = true
		l.mu.Unlock()
		select {
		case l.wake <- struct{}{}:
		default: // one is pending
		}
	}
}

func (l *largeLogs) take() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	ids := slices.Sorted(maps.Keys(l.ids))
	clear(l.ids)
	return ids
}
