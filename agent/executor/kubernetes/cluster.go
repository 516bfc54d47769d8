package kubernetes

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/quicflow/quicflow/internal/release"
)

const (
	// requestTimeout bounds one request to the API server, but not a stream of logs.
	requestTimeout = 30 * time.Second
	// patience is how long a request that the server could not take now is repeated.
	patience = 30 * time.Second
	// probeTimeout bounds the first request of all.
	probeTimeout = 5 * time.Second
)

// cluster is a cluster as this host reaches it.
type cluster struct {
	namespace string // of the configuration, else of the context
	server    string // URL
	version   string // of the server
	inside    bool   // the agent is a pod of it
	kube      typedcorev1.CoreV1Interface
	logs      typedcorev1.CoreV1Interface // without a limit of time
	objects   dynamic.Interface
	mapper    *restmapper.DeferredDiscoveryRESTMapper
}

// connect reads the kubeconfig, or the account of the pod that this is, and asks the server for its version. warn gets the server's
// warnings; nil drops them.
func connect(ctx context.Context, spec *release.KubernetesSpec, warn rest.WarningHandler) (*cluster, error) {
	config, namespace, inside, err := restConfig(spec)
	if err != nil {
		return nil, err
	}
	config.UserAgent = "quicflow"
	config.QPS, config.Burst = 50, 100
	config.WarningHandler = rest.NoWarnings{}
	if warn != nil {
		config.WarningHandler = warn
	}
	streams := rest.CopyConfig(config)
	config.Timeout = requestTimeout
	c := &cluster{namespace: namespace, server: config.Host, inside: inside}
	if c.kube, err = typedcorev1.NewForConfig(config); err != nil {
		return nil, fmt.Errorf("use the kubeconfig: %w", err)
	}
	if c.logs, err = typedcorev1.NewForConfig(streams); err != nil {
		return nil, fmt.Errorf("use the kubeconfig: %w", err)
	}
	if c.objects, err = dynamic.NewForConfig(config); err != nil {
		return nil, fmt.Errorf("use the kubeconfig: %w", err)
	}
	found, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("use the kubeconfig: %w", err)
	}
	c.mapper = restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(found))

	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	text, err := found.RESTClient().Get().AbsPath("/version").Do(ctx).Raw()
	if err != nil {
		return nil, c.say(err)
	}
	var version struct {
		GitVersion string `json:"gitVersion"`
	}
	if err := json.Unmarshal(text, &version); err != nil {
		return nil, fmt.Errorf("%s is no Kubernetes API server", c.server)
	}
	c.version = version.GitVersion
	return c, nil
}

// restConfig looks for the way to the cluster in the order that the field's doc promises.
func restConfig(spec *release.KubernetesSpec) (_ *rest.Config, namespace string, inside bool, err error) {
	path := spec.Kubeconfig
	if path == "" && spec.Context == "" && os.Getenv("KUBECONFIG") == "" {
		if config, err := rest.InClusterConfig(); err == nil {
			namespace := spec.Namespace
			if text, err := os.ReadFile("/var/run/secrets/kubernetes.io/serviceaccount/namespace"); err == nil && namespace == "" {
				namespace = strings.TrimSpace(string(text))
			}
			return config, orDefault(namespace), true, nil
		}
	}
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	if path != "" {
		rules.ExplicitPath = path
		if _, err := os.Stat(path); err != nil {
			return nil, "", false, fmt.Errorf("the kubeconfig cannot be read: %w", err)
		}
	}
	overrides := &clientcmd.ConfigOverrides{CurrentContext: spec.Context, Context: clientcmdapi.Context{Namespace: spec.Namespace}}
	loader := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, overrides)
	config, err := loader.ClientConfig()
	switch {
	case clientcmd.IsEmptyConfig(err):
		return nil, "", false, errors.New("there is no kubeconfig (KUBECONFIG, ~/.kube/config), and this is no pod of a cluster")
	case err != nil:
		return nil, "", false, fmt.Errorf("the kubeconfig is wrong: %s", oneLine(err.Error()))
	}
	namespace, _, err = loader.Namespace()
	if err != nil {
		return nil, "", false, fmt.Errorf("the kubeconfig is wrong: %s", oneLine(err.Error()))
	}
	return config, orDefault(namespace), false, nil
}

func orDefault(namespace string) string {
	if namespace == "" {
		return metav1.NamespaceDefault
	}
	return namespace
}

// say makes one line of an error of the API's.
func (c *cluster) say(err error) error {
	var request *url.Error
	var dns *net.DNSError
	switch {
	case err == nil:
		return nil
	case apierrors.IsUnauthorized(err):
		return fmt.Errorf("the cluster %s does not accept this login (401)", c.server)
	case errors.As(err, &dns):
		return fmt.Errorf("the cluster %s cannot be found: %s", c.server, dns.Err)
	case errors.As(err, &request):
		return fmt.Errorf("the cluster %s does not answer: %w", c.server, request.Err)
	}
	return &apiError{err}
}

// apiError is an error of the API's whose text is one line.
type apiError struct{ err error }

func (e *apiError) Error() string { return oneLine(e.err.Error()) }
func (e *apiError) Unwrap() error { return e.err }

// transient says whether the same request may succeed a moment later.
func transient(err error) bool {
	if apierrors.IsInternalError(err) { // which a wrong object is, too
		return strings.Contains(err.Error(), "etcdserver") || strings.Contains(err.Error(), "failed calling webhook")
	}
	return apierrors.IsTooManyRequests(err) || apierrors.IsServerTimeout(err) || apierrors.IsTimeout(err) || apierrors.IsServiceUnavailable(err) ||
		apierrors.IsUnexpectedServerError(err) || utilnet.IsConnectionRefused(err) || utilnet.IsConnectionReset(err) ||
		utilnet.IsProbableEOF(err) || utilnet.IsTimeout(err) || utilnet.IsHTTP2ConnectionLost(err)
}

// try makes a request until it does not fail for a transient reason, or patience is over.
func (c *cluster) try(ctx context.Context, request func(ctx context.Context) error) error {
	until := time.Now().Add(patience)
	for pause := 200 * time.Millisecond; ; pause = min(2*pause, 3*time.Second) {
		err := request(ctx)
		if err == nil || !transient(err) || time.Now().After(until) {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(pause):
		}
	}
}

// resource gives the client for an object, with the namespace that it has, or should have.
func (c *cluster) resource(r ref) (dynamic.ResourceInterface, *meta.RESTMapping, error) {
	mapping, err := c.mapper.RESTMapping(r.gvk().GroupKind(), r.gvk().Version)
	if err != nil {
		return nil, nil, err
	}
	if mapping.Scope.Name() != meta.RESTScopeNameNamespace {
		return c.objects.Resource(mapping.Resource), mapping, nil
	}
	return c.objects.Resource(mapping.Resource).Namespace(orNamespace(r.Namespace, c.namespace)), mapping, nil
}

func orNamespace(namespace, other string) string {
	if namespace == "" {
		return other
	}
	return namespace
}

// place gives an object the namespace that it will have. It fails for a kind that the cluster does not know.
func (c *cluster) place(o *object) error {
	_, mapping, err := c.resource(refOf(o))
	if err != nil {
		return err
	}
	if mapping.Scope.Name() != meta.RESTScopeNameNamespace {
		o.SetNamespace("")
	} else {
		o.SetNamespace(orNamespace(o.GetNamespace(), c.namespace))
	}
	return nil
}

// get gives nil for an object that is not there.
func (c *cluster) get(ctx context.Context, r ref) (*object, error) {
	var found *object
	err := c.try(ctx, func(ctx context.Context) error {
		client, _, err := c.resource(r)
		if err != nil {
			return err
		}
		found, err = client.Get(ctx, r.Name, metav1.GetOptions{})
		return err
	})
	if apierrors.IsNotFound(err) || meta.IsNoMatchError(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", r, c.say(err))
	}
	return found, nil
}

// apply applies an object and gives what the server makes of it. A dry run changes nothing.
func (c *cluster) apply(ctx context.Context, o *object, force, dry bool) (*object, error) {
	result, err := c.applyAs(ctx, manager, o, force, dry)
	if err != nil && !force && onlyOurs(err) {
		result, err = c.applyAs(ctx, manager, o, true, dry)
	}
	return result, err
}

func (c *cluster) applyAs(ctx context.Context, who string, o *object, force, dry bool) (*object, error) {
	text, err := o.MarshalJSON()
	if err != nil {
		return nil, err
	}
	options := metav1.PatchOptions{FieldManager: who, Force: &force, FieldValidation: metav1.FieldValidationStrict}
	if dry {
		options.DryRun = []string{metav1.DryRunAll}
	}
	var result *object
	err = c.try(ctx, func(ctx context.Context) error {
		client, _, err := c.resource(refOf(o))
		if err != nil {
			return err
		}
		result, err = client.Patch(ctx, o.GetName(), types.ApplyPatchType, text, options)
		return err
	})
	return result, err
}

// conflicts gives the fields that others manage, if that is why an apply failed: manager by field.
func conflicts(err error) []metav1.StatusCause {
	var status apierrors.APIStatus
	if !errors.As(err, &status) || !apierrors.IsConflict(err) || status.Status().Details == nil {
		return nil
	}
	var found []metav1.StatusCause
	for _, cause := range status.Status().Details.Causes {
		if cause.Type == metav1.CauseTypeFieldManagerConflict {
			found = append(found, cause)
		}
	}
	return found
}

// onlyOurs says whether an apply failed because of what this executor handed over itself.
func onlyOurs(err error) bool {
	causes := conflicts(err)
	for _, cause := range causes {
		if !strings.Contains(cause.Message, `"`+handover+`"`) {
			return false
		}
	}
	return len(causes) > 0
}

// sayApply makes one line of what an apply of an object failed with.
func (c *cluster) sayApply(r ref, err error) error {
	if causes := conflicts(err); len(causes) > 0 {
		texts := make([]string, 0, len(causes))
		for _, cause := range causes {
			who := strings.TrimPrefix(cause.Message, "conflict with ")
			who, _, _ = strings.Cut(who, " using ")
			texts = append(texts, strings.TrimPrefix(cause.Field, ".")+" is managed by "+who)
		}
		return fmt.Errorf("%s: %s; leave it out, or set force to take it over", r, oneLine(strings.Join(texts, ", ")))
	}
	if meta.IsNoMatchError(err) {
		return fmt.Errorf("%s: the cluster knows no kind %s of %s", r, r.Kind, r.APIVersion)
	}
	return fmt.Errorf("%s: %w", r, c.say(err))
}

// ensureNamespace makes the namespace if it is missing and that is wanted.
func (c *cluster) ensureNamespace(ctx context.Context, create bool) (made bool, err error) {
	err = c.try(ctx, func(ctx context.Context) error {
		_, err := c.kube.Namespaces().Get(ctx, c.namespace, metav1.GetOptions{})
		return err
	})
	switch {
	case err == nil:
		return false, nil
	case apierrors.IsForbidden(err) && !create:
		return false, nil // what is applied will tell
	case !apierrors.IsNotFound(err) && !apierrors.IsForbidden(err):
		return false, c.say(err)
	case !create:
		return false, fmt.Errorf("the namespace %s does not exist; make it, or set create_namespace", c.namespace)
	}
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: c.namespace, Labels: map[string]string{labelManagedBy: manager, labelManaged: "true"}}}
	err = c.try(ctx, func(ctx context.Context) error {
		_, err := c.kube.Namespaces().Create(ctx, namespace, metav1.CreateOptions{FieldManager: manager})
		return err
	})
	if apierrors.IsAlreadyExists(err) {
		return false, nil
	}
	return err == nil, c.say(err)
}
