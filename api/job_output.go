package api

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/quicflow/quicflow/internal/job"
	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/store"
)

// Limits of what answers show of the output of a host, for each of stdout and stderr, in bytes. The log has all of it.
const (
	MaxOutput       = 1 << 20  // of GET /api/command/{command_id}
	MaxResult       = 16 << 20 // the same, of a typed result that is in the log
	MaxResultOutput = 64 << 10 // of a host among others
	maxMultiOutput  = 64 << 20 // of all hosts of POST /api/command/multi
	maxLogRecord    = 64 << 10 // a record of the log is never longer
	outputWait      = 2 * time.Second
)

// Output is what a command without a typed result gave, such as exec_shell.
type Output struct {
	ExitCode        *int   `json:"exit_code,omitempty" doc:"Left out where no exit code decided the outcome"`
	Stdout          string `json:"stdout" doc:"As text: bytes that are not UTF-8 are replaced; the log has them"`
	Stderr          string `json:"stderr"`
	StdoutTruncated bool   `json:"stdout_truncated" doc:"Stdout is only the end, or not all of it is stored yet; stdout_bytes says how much there was"`
	StderrTruncated bool   `json:"stderr_truncated"`
	StdoutBytes     int64  `json:"stdout_bytes"`
	StderrBytes     int64  `json:"stderr_bytes"`
}

// outcome is what a host gave, as far as it is stored.
type outcome struct {
	output  *Output         // nil if nothing ran
	result  json.RawMessage // of a command with a typed result, else the output; nil if there is none
	typed   bool            // result is not the output
	problem string          // why there is no result though the host gave one
	pending bool            // more is to come from the log
}

// outcomeOf puts together what a host gave, up to limit bytes of each stream, or of a typed result up to resultLimit: from the log
// where all of it is stored, else from the ends that came with the result.
func (s *server) outcomeOf(ctx context.Context, t *job.Target, limit, resultLimit int) (o outcome, err error) {
	if !ran(t) {
		return outcome{}, nil
	}
	o.output = &Output{ExitCode: t.ExitCode, StdoutBytes: t.StdoutBytes, StderrBytes: t.StderrBytes}
	if t.ResultInLog {
		return o, s.resultFromLog(ctx, t, resultLimit, &o)
	}
	stdout, whole, err := s.stream(ctx, t, release.StreamStdout, t.Stdout, t.StdoutBytes, limit, &o)
	if err != nil {
		return o, err
	}
	o.output.Stdout, o.output.StdoutTruncated = text(stdout, !whole), !whole
	stderr, whole, err := s.stream(ctx, t, release.StreamStderr, t.Stderr, t.StderrBytes, limit, &o)
	if err != nil {
		return o, err
	}
	o.output.Stderr, o.output.StderrTruncated = text(stderr, !whole), !whole
	if len(t.Result) > 0 {
		o.result, o.typed = t.Result, true
		return o, nil
	}
	o.result, err = json.Marshal(o.output)
	return o, err
}

// ran says whether there is an outcome of the host's own.
func ran(t *job.Target) bool {
	switch t.State {
	case job.StateSucceeded, job.StateFailed, job.StateTimeout:
		return true
	case job.StateCancelled, job.StateUnknown:
		return t.ExitCode != nil || t.StdoutBytes > 0 || t.StderrBytes > 0 || len(t.Result) > 0
	}
	return false
}

// resultFromLog reads a typed result that was too large to come in one piece.
func (s *server) resultFromLog(ctx context.Context, t *job.Target, limit int, o *outcome) error {
	result, whole, err := s.stream(ctx, t, release.StreamStdout, nil, t.StdoutBytes, limit, o)
	switch {
	case err != nil:
		return err
	case whole && json.Valid(result):
		o.result, o.typed = result, true
	case t.StdoutBytes > int64(limit):
		o.problem = fmt.Sprintf("the result has %d bytes, more than are shown here; GET /api/command/%s has it", t.StdoutBytes, t.ID())
	case o.pending:
		o.problem = "the result is not stored yet, or no longer"
	default:
		o.problem = "the result is not JSON; the log of the job has it"
	}
	o.output.StdoutTruncated = !whole
	return nil
}

// stream gives the end of what a host wrote to a stream, at most limit bytes, and whether that is all of it.
func (s *server) stream(ctx context.Context, t *job.Target, stream release.Stream, tail []byte, total int64, limit int, o *outcome) (end []byte, whole bool, err error) {
	if total <= int64(len(tail)) {
		return lastOf(tail, limit), len(tail) <= limit, nil
	}
	from := max(total-int64(limit), 0)
	logged, complete, err := s.logged(ctx, t, stream, uint64(from), uint64(total))
	switch {
	case err != nil:
		return nil, false, err
	case complete:
		return logged, from == 0, nil
	}
	o.pending = true
	return lastOf(tail, limit), false, nil
}

// logged gives the bytes of a stream in [from, to) from the stored log, if all of them are there.
func (s *server) logged(ctx context.Context, t *job.Target, stream release.Stream, from, to uint64) (data []byte, complete bool, err error) {
	filter := store.LogFilter{
		ClientID: t.ClientID, StepID: release.StepID(t.JobID, job.StepCommand, t.ClientID, t.Epoch), Stream: stream,
		FromOffset: from - min(from, maxLogRecord),
	}
	next, after := from, int64(0)
	for next < to {
		records, err := s.Store.Logs(ctx, t.JobID, after, filter, streamBatch)
		if err != nil {
			return nil, false, err
		}
		for _, r := range records {
			after = r.Seq
			ends := r.Offset + uint64(len(r.Data))
			if ends <= next {
				continue
			}
			if r.Offset > next {
				return nil, false, nil // a piece is missing
			}
			data = append(data, r.Data[next-r.Offset:min(ends, to)-r.Offset]...)
			if next = min(ends, to); next == to {
				break
			}
		}
		if len(records) < streamBatch {
			break
		}
	}
	return data, next == to, nil
}

func lastOf(b []byte, limit int) []byte { return b[max(len(b)-limit, 0):] }

// text makes text of what a host wrote. What was cut may begin amid a character.
func text(b []byte, cut bool) string {
	if cut {
		for i := 0; i < utf8.UTFMax-1 && len(b) > 0 && !utf8.RuneStart(b[0]); i++ {
			b = b[1:]
		}
	}
	return strings.ToValidUTF8(string(b), "\uFFFD")
}
