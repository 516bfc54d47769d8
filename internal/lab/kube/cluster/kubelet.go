package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/util/workqueue"
)

const (
	leaseSeconds = 40
	leaseRenewal = 10 * time.Second
)

// kubelet is a Node of a cluster that runs nothing: it tells of each Pod that is bound to it what a container runtime could have made
// of it (see behaviour), finishes deletions, and serves logs that nothing wrote.
type kubelet struct {
	client *kubernetes.Clientset
	node   string
	pods   corelisters.PodLister
	queue  workqueue.TypedRateLimitingInterface[cache.ObjectName]
	ips    int // given out so far
}

func runKubelet(args []string) error {
	set := flag.NewFlagSet("kubelet", flag.ExitOnError)
	config := set.String("kubeconfig", "", "")
	name := set.String("node", "node-0", "")
	_ = set.Parse(args)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()

	c, err := clientcmd.BuildConfigFromFlags("", *config)
	if err != nil {
		return err
	}
	c.QPS, c.Burst = 100, 200
	client, err := kubernetes.NewForConfig(c)
	if err != nil {
		return err
	}
	k := &kubelet{client: client, node: *name, queue: workqueue.NewTypedRateLimitingQueue(
		workqueue.NewTypedItemExponentialFailureRateLimiter[cache.ObjectName](20*time.Millisecond, time.Second))}

	factory := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithTweakListOptions(func(o *metav1.ListOptions) {
		o.FieldSelector = fields.OneTermEqualSelector("spec.nodeName", k.node).String()
	}))
	pods := factory.Core().V1().Pods()
	k.pods = pods.Lister()
	add := func(object any) {
		if name, err := cache.ObjectToName(object); err == nil {
			k.queue.Add(name)
		}
	}
	_, err = pods.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: add, UpdateFunc: func(_, object any) { add(object) }})
	if err != nil {
		return err
	}
	port, err := k.serveLogs()
	if err != nil {
		return err
	}
	if err := k.register(ctx, port); err != nil {
		return err
	}
	go wait.UntilWithContext(ctx, k.renewLease, leaseRenewal)
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	go func() {
		<-ctx.Done()
		k.queue.ShutDown()
	}()
	for k.next(ctx) {
	}
	return nil
}

// register makes the Node, or takes over what an earlier kubelet made.
func (k *kubelet) register(ctx context.Context, logsPort int) error {
	amounts := corev1.ResourceList{
		corev1.ResourceCPU: resource.MustParse("8"), corev1.ResourceMemory: resource.MustParse("16Gi"), corev1.ResourcePods: resource.MustParse("110"),
	}
	now := metav1.Now()
	return wait.PollUntilContextCancel(ctx, 100*time.Millisecond, true, func(ctx context.Context) (bool, error) {
		node, err := k.client.CoreV1().Nodes().Get(ctx, k.node, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			node, err = k.client.CoreV1().Nodes().Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: k.node, Labels: map[string]string{
				corev1.LabelHostname: k.node, corev1.LabelOSStable: "linux", corev1.LabelArchStable: "amd64"}}}, metav1.CreateOptions{})
		}
		if err != nil {
			return false, nil //nolint:nilerr // again
		}
		node.Status.Capacity, node.Status.Allocatable = amounts, amounts
		node.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "KubeletReady",
			LastHeartbeatTime: now, LastTransitionTime: now}}
		node.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "127.0.0.1"}}
		node.Status.DaemonEndpoints.KubeletEndpoint.Port = int32(logsPort)
		_, err = k.client.CoreV1().Nodes().UpdateStatus(ctx, node, metav1.UpdateOptions{})
		return err == nil, nil
	})
}

func (k *kubelet) renewLease(ctx context.Context) {
	leases := k.client.CoordinationV1().Leases(corev1.NamespaceNodeLease)
	now, seconds := metav1.NowMicro(), int32(leaseSeconds)
	spec := coordinationv1.LeaseSpec{HolderIdentity: &k.node, LeaseDurationSeconds: &seconds, RenewTime: &now}
	lease, err := leases.Get(ctx, k.node, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		_, err = leases.Create(ctx, &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: k.node}, Spec: spec}, metav1.CreateOptions{})
	case err == nil:
		lease.Spec = spec
		_, err = leases.Update(ctx, lease, metav1.UpdateOptions{})
	}
	if err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, "renew lease:", err)
	}
}

// next handles one Pod and reports false when there will be no more.
func (k *kubelet) next(ctx context.Context) bool {
	name, down := k.queue.Get()
	if down {
		return false
	}
	defer k.queue.Done(name)
	again, err := k.handle(ctx, name)
	switch {
	case err != nil && !apierrors.IsNotFound(err) && ctx.Err() == nil:
		k.queue.AddRateLimited(name)
		return true
	case again > 0:
		k.queue.AddAfter(name, again)
	}
	k.queue.Forget(name)
	return true
}

// handle brings a Pod's status to what it should be now, and says when to look again.
func (k *kubelet) handle(ctx context.Context, name cache.ObjectName) (time.Duration, error) {
	pod, err := k.pods.Pods(name.Namespace).Get(name.Name)
	if err != nil {
		return 0, err
	}
	pods := k.client.CoreV1().Pods(pod.Namespace)
	if pod.DeletionTimestamp != nil {
		now := int64(0)
		return 0, pods.Delete(ctx, pod.Name, metav1.DeleteOptions{GracePeriodSeconds: &now, Preconditions: metav1.NewUIDPreconditions(string(pod.UID))})
	}
	if pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
		return 0, nil
	}
	was := pod.Status.DeepCopy()
	if pod.Status.StartTime == nil {
		k.ips++
		now := metav1.Now()
		pod = pod.DeepCopy()
		pod.Status.StartTime, pod.Status.HostIP = &now, "127.0.0.1"
		pod.Status.PodIP = fmt.Sprintf("10.251.%d.%d", k.ips/250%250, k.ips%250+1)
		pod.Status.PodIPs = []corev1.PodIP{{IP: pod.Status.PodIP}}
	}
	is, event, again := status(pod, time.Now())
	if same(was, &is) {
		return again, nil
	}
	pod = pod.DeepCopy()
	pod.Status = is
	if _, err := pods.UpdateStatus(ctx, pod, metav1.UpdateOptions{}); err != nil {
		return 0, err
	}
	if event != nil {
		event.InvolvedObject = corev1.ObjectReference{APIVersion: "v1", Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID}
		event.Source.Host = k.node
		_, err = k.client.CoreV1().Events(pod.Namespace).Create(ctx, event, metav1.CreateOptions{})
	}
	return again, err
}
