package kubernetes

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/quicflow/quicflow/agent/executor"
)

const (
	// maxFollowed is how many containers are followed at a time; those beyond it wait for one to end.
	maxFollowed = 50
	// maxLogLine is where a line of a log is broken in two.
	maxLogLine = 64 << 10
	// podsLook is how often new pods are looked for.
	podsLook = 2 * time.Second
)

// Logs writes the logs of all pods of a project's workloads, one pod after the other, each line with the pod's name before it; with
// Follow those of new pods, too, as they are written. Tail is of each container.
func (*Worker) Logs(ctx context.Context, what executor.Deployed, options executor.LogOptions, out io.Writer) error {
	d, inv, err := open(ctx, what)
	if err != nil {
		return err
	}
	if inv.secret == nil {
		return fmt.Errorf("nothing of %s is in namespace %s", what.Project, d.namespace)
	}
	l := &logs{deployment: d, refs: inv.Objects, options: options, out: out, seen: map[string]bool{}, slots: make(chan struct{}, maxFollowed)}
	if options.Follow {
		return l.follow(ctx)
	}
	sources, err := l.sources(ctx)
	for _, s := range sources {
		if err == nil {
			err = l.copy(ctx, s)
		}
	}
	return err
}

type logs struct {
	*deployment
	refs    []ref
	options executor.LogOptions
	slots   chan struct{}
	seen    map[string]bool // sources that are followed, or were

	mu  sync.Mutex
	out io.Writer
	err error // of out
}

// source is a container whose log can be read.
type source struct {
	namespace, pod, container string
	prefix                    string
	uid                       types.UID
	restarts                  int32
}

func (s source) key() string { return fmt.Sprint(s.uid, "/", s.container, "/", s.restarts) }

// sources are the containers that have run.
func (l *logs) sources(ctx context.Context) ([]source, error) {
	var found []source
	for _, r := range l.refs {
		if !isWorkload(r) {
			continue
		}
		live, err := l.get(ctx, r)
		if err != nil {
			return nil, err
		}
		if live == nil {
			continue
		}
		pods, err := l.podsOf(ctx, live, false)
		if err != nil {
			return nil, err
		}
		for _, pod := range pods {
			statuses := append(append([]corev1.ContainerStatus{}, pod.Status.InitContainerStatuses...), pod.Status.ContainerStatuses...)
			for _, s := range statuses {
				if s.State.Running == nil && s.State.Terminated == nil && s.LastTerminationState.Terminated == nil {
					continue
				}
				prefix := "[" + pod.Name + "] "
				if len(statuses) > 1 {
					prefix = "[" + pod.Name + "/" + s.Name + "] "
				}
				found = append(found, source{pod.Namespace, pod.Name, s.Name, prefix, pod.UID, s.RestartCount})
			}
		}
	}
	return found, nil
}

// copy writes a container's log until it ends. A pod that is gone has none.
func (l *logs) copy(ctx context.Context, s source) error {
	options := &corev1.PodLogOptions{Container: s.container, Follow: l.options.Follow, Timestamps: l.options.Timestamps}
	if l.options.Tail > 0 {
		tail := int64(l.options.Tail)
		options.TailLines = &tail
	}
	if !l.options.Since.IsZero() {
		since := metav1.NewTime(l.options.Since)
		options.SinceTime = &since
	}
	stream, err := l.deployment.logs.Pods(s.namespace).GetLogs(s.pod, options).Stream(ctx)
	switch {
	case apierrors.IsNotFound(err):
		return nil
	case apierrors.IsBadRequest(err): // a container that has not begun, or whose log is gone
		return l.write(s.prefix, []byte("("+oneLine(err.Error())+")"))
	case err != nil:
		return l.say(err)
	}
	defer func() { _ = stream.Close() }()
	reader := bufio.NewReaderSize(stream, maxLogLine)
	for {
		line, err := reader.ReadSlice('\n')
		if len(line) > 0 {
			if err := l.write(s.prefix, bytes.TrimRight(line, "\r\n")); err != nil {
				return err
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case errors.Is(err, bufio.ErrBufferFull):
		case err != nil:
			return fmt.Errorf("read the log of %s: %w", s.pod, err)
		}
	}
}

func (l *logs) write(prefix string, line []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil {
		_, l.err = l.out.Write(append(append([]byte(prefix), line...), '\n'))
	}
	return l.err
}

// follow copies the logs of all containers, and of those that begin later, until ctx ends.
func (l *logs) follow(ctx context.Context) error {
	ctx, stop := context.WithCancelCause(ctx)
	var copies sync.WaitGroup
	defer copies.Wait()
	defer stop(nil)
	for {
		sources, err := l.sources(ctx)
		if ctx.Err() != nil {
			return l.written()
		}
		if err != nil && !strings.Contains(err.Error(), "does not answer") {
			return err
		}
		for _, s := range sources {
			if l.seen[s.key()] {
				continue
			}
			select {
			case l.slots <- struct{}{}:
			default:
				continue
			}
			l.seen[s.key()] = true
			copies.Go(func() {
				defer func() { <-l.slots }()
				if err := l.copy(ctx, s); err != nil && ctx.Err() == nil {
					if l.write(s.prefix, []byte("("+oneLine(err.Error())+")")) != nil {
						stop(err)
					}
				}
			})
		}
		select {
		case <-ctx.Done():
			return l.written()
		case <-time.After(podsLook):
		}
	}
}

// written gives the error of the writer: the reader's end of what was asked for is none.
func (l *logs) written() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}
