package kubernetes

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	inventoryType = "quicflow/inventory" // of the Secret
	inventoryKey  = "inventory.json"     // of its data; each revision's objects have one of their own
	// maxInventoryBytes keeps the Secret below the cluster's limit of 1 MiB. Older revisions are dropped for it.
	maxInventoryBytes = 1000 << 10
	// maxRevisionBytes bounds a revision's objects when they are read: what is packed well may be much.
	maxRevisionBytes = 64 << 20
)

// inventory is what the executor knows of a project's deployment in a namespace. It is kept in the cluster, so that another agent
// finds it, in a Secret, as what was applied may hold secrets.
type inventory struct {
	Project string `json:"project"`
	Target  string `json:"target"` // whose agent it belongs to
	Last    int    `json:"last"`   // number of the last revision
	// Objects are all that may be there: of what runs, of a step that has not ended, and what could not be deleted.
	Objects   []ref      `json:"objects"`
	Revisions []revision `json:"revisions"` // the oldest first

	secret *corev1.Secret // as it was read; nil if there is none yet
	sets   map[int][]byte // what was applied, packed, by revision
}

// revision is one deployment.
type revision struct {
	Number   int       `json:"number"`
	Version  string    `json:"version"`
	ConfigID string    `json:"config_id"`
	TaskID   string    `json:"task_id"`
	StepID   string    `json:"step_id"`
	At       time.Time `json:"at"` // when it began
	// Ready: its step succeeded. At most the last one is not.
	Ready   bool      `json:"ready"`
	ReadyAt time.Time `json:"ready_at,omitzero"`
}

func inventoryName(project string) string { return "quicflow-" + project }

func setKey(number int) string { return "revision-" + strconv.Itoa(number) + ".json.gz" }

// loadInventory gives an empty inventory if there is none.
func (c *cluster) loadInventory(ctx context.Context, project string) (*inventory, error) {
	var secret *corev1.Secret
	err := c.try(ctx, func(ctx context.Context) (err error) {
		secret, err = c.kube.Secrets(c.namespace).Get(ctx, inventoryName(project), metav1.GetOptions{})
		return err
	})
	if apierrors.IsNotFound(err) {
		return &inventory{Project: project, sets: map[int][]byte{}}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read what is deployed: %w", c.say(err))
	}
	inv := &inventory{secret: secret, sets: map[int][]byte{}}
	if err := json.Unmarshal(secret.Data[inventoryKey], inv); err != nil {
		return nil, fmt.Errorf("the secret %s/%s is not what QuicFlow wrote: %w", c.namespace, secret.Name, err)
	}
	if inv.Project != project {
		return nil, fmt.Errorf("the secret %s/%s is of project %q", c.namespace, secret.Name, inv.Project)
	}
	for _, r := range inv.Revisions {
		inv.sets[r.Number] = secret.Data[setKey(r.Number)]
	}
	return inv, nil
}

// save writes the inventory unless someone else did since it was read.
func (c *cluster) save(ctx context.Context, inv *inventory) error {
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: inventoryName(inv.Project), Namespace: c.namespace}, Type: inventoryType}
	if inv.secret != nil {
		secret = inv.secret.DeepCopy()
	}
	secret.Labels = map[string]string{labelProject: inv.Project, labelManaged: "true", labelManagedBy: manager}
	secret.Annotations = map[string]string{annotationTarget: inv.Target}
	var err error
	if secret.Data, err = inv.data(); err != nil {
		return err
	}
	create := inv.secret == nil
	attempts := 0
	err = c.try(ctx, func(ctx context.Context) (err error) {
		attempts++
		secrets := c.kube.Secrets(c.namespace)
		if create {
			inv.secret, err = secrets.Create(ctx, secret, metav1.CreateOptions{FieldManager: manager})
		} else {
			inv.secret, err = secrets.Update(ctx, secret, metav1.UpdateOptions{FieldManager: manager})
		}
		return err
	})
	if apierrors.IsAlreadyExists(err) || apierrors.IsConflict(err) {
		// A write whose answer was lost has been done.
		if there, err := c.kube.Secrets(c.namespace).Get(ctx, secret.Name, metav1.GetOptions{}); attempts > 1 && err == nil &&
			bytes.Equal(there.Data[inventoryKey], secret.Data[inventoryKey]) {
			inv.secret = there
			return nil
		}
		return fmt.Errorf("another agent deploys %s to namespace %s at the same time", inv.Project, c.namespace)
	}
	if err != nil {
		inv.secret = nil
		return fmt.Errorf("record what is deployed: %w", c.say(err))
	}
	return nil
}

// data encodes the inventory, without as many of the oldest revisions as it must be.
func (inv *inventory) data() (map[string][]byte, error) {
	for {
		text, err := json.Marshal(inv)
		if err != nil {
			return nil, err
		}
		data := map[string][]byte{inventoryKey: text}
		size := len(text)
		for _, r := range inv.Revisions {
			data[setKey(r.Number)] = inv.sets[r.Number]
			size += len(inv.sets[r.Number])
		}
		if size <= maxInventoryBytes {
			return data, nil
		}
		// What serves is needed to go back to.
		oldest := slices.IndexFunc(inv.Revisions, func(r revision) bool {
			ready := inv.ready()
			return (ready == nil || r.Number != ready.Number) && r.Number != inv.Last
		})
		if oldest < 0 {
			return nil, fmt.Errorf("the objects take %d bytes, packed; a cluster keeps %d of a deployment", size, maxInventoryBytes)
		}
		inv.Revisions = slices.Delete(inv.Revisions, oldest, oldest+1)
	}
}

func (c *cluster) deleteInventory(ctx context.Context, project string) error {
	err := c.try(ctx, func(ctx context.Context) error {
		return c.kube.Secrets(c.namespace).Delete(ctx, inventoryName(project), metav1.DeleteOptions{})
	})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("forget what was deployed: %w", c.say(err))
	}
	return nil
}

// ready gives the revision that serves: the last whose step succeeded.
func (inv *inventory) ready() *revision {
	for i := len(inv.Revisions) - 1; i >= 0; i-- {
		if inv.Revisions[i].Ready {
			return &inv.Revisions[i]
		}
	}
	return nil
}

// ofStep gives the revision that a step began.
func (inv *inventory) ofStep(step string) *revision {
	for i := range inv.Revisions {
		if inv.Revisions[i].StepID == step {
			return &inv.Revisions[i]
		}
	}
	return nil
}

// ofVersion gives the last revision that succeeded with a version.
func (inv *inventory) ofVersion(version string) *revision {
	for i := len(inv.Revisions) - 1; i >= 0; i-- {
		if r := &inv.Revisions[i]; r.Ready && r.Version == version {
			return r
		}
	}
	return nil
}

// begin adds a revision, in place of one whose step never ended.
func (inv *inventory) begin(r revision, objects []*object) (int, error) {
	packed, err := pack(objects)
	if err != nil {
		return 0, err
	}
	inv.Revisions = slices.DeleteFunc(inv.Revisions, func(r revision) bool { return !r.Ready })
	inv.Last++
	r.Number = inv.Last
	inv.Revisions = append(inv.Revisions, r)
	inv.sets[r.Number] = packed
	return r.Number, nil
}

// trim keeps what serves and as many before it.
func (inv *inventory) trim(keep int) {
	if extra := len(inv.Revisions) - 1 - keep; extra > 0 {
		inv.Revisions = slices.Delete(inv.Revisions, 0, extra)
	}
}

// applied gives what a revision applied.
func (inv *inventory) applied(number int) ([]*object, error) {
	unpacked, err := gzip.NewReader(bytes.NewReader(inv.sets[number]))
	if err != nil {
		return nil, fmt.Errorf("read revision %d: %w", number, err)
	}
	text, err := io.ReadAll(io.LimitReader(unpacked, maxRevisionBytes))
	if err != nil {
		return nil, fmt.Errorf("read revision %d: %w", number, err)
	}
	var encoded []json.RawMessage
	if err := json.Unmarshal(text, &encoded); err != nil {
		return nil, fmt.Errorf("read revision %d: %w", number, err)
	}
	objects := make([]*object, len(encoded))
	for i, text := range encoded {
		if objects[i], err = objectFromJSON(text); err != nil {
			return nil, fmt.Errorf("read revision %d: %w", number, err)
		}
	}
	return objects, nil
}

func pack(objects []*object) ([]byte, error) {
	contents := make([]map[string]any, len(objects))
	for i, o := range objects {
		contents[i] = o.Object
	}
	var packed bytes.Buffer
	writer := gzip.NewWriter(&packed)
	if err := json.NewEncoder(writer).Encode(contents); err != nil {
		return nil, err
	}
	if err := writer.Close(); err != nil {
		return nil, err
	}
	return packed.Bytes(), nil
}
