package kubernetes

import (
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/quicflow/quicflow/agent/executor"
)

// Field managers of server-side apply.
const (
	manager = "quicflow"
	// handover owns what this executor managed once and leaves to others now, such as the replicas that an autoscaler sets. Without it
	// the cluster would fall back to its default.
	handover = "quicflow-handover"
)

// What every object carries.
const (
	labelProject = "quicflow/project"
	labelManaged = "quicflow/managed" // always "true"

	annotationVersion = "quicflow/version"
	annotationConfig  = "quicflow/config"
	annotationStep    = "quicflow/step"
	annotationTask    = "quicflow/task"
	annotationTarget  = "quicflow/target"
	// annotationKeep is a user's, with the value "true": nothing deletes the object.
	annotationKeep = "quicflow/keep"

	labelAppName    = "app.kubernetes.io/name"
	labelAppVersion = "app.kubernetes.io/version" // left out where the version is no label's value
	labelManagedBy  = "app.kubernetes.io/managed-by"
)

// stamp puts the labels and annotations of a step on an object, over those it has.
func stamp(o *object, step *executor.Step) {
	labels, annotations := o.GetLabels(), o.GetAnnotations()
	if labels == nil {
		labels = map[string]string{}
	}
	if annotations == nil {
		annotations = map[string]string{}
	}
	labels[labelProject], labels[labelManaged], labels[labelManagedBy] = step.Project, "true", manager
	if labels[labelAppName] == "" {
		labels[labelAppName] = step.Project
	}
	if isLabelValue(step.Version) {
		labels[labelAppVersion] = step.Version
	}
	annotations[annotationVersion], annotations[annotationConfig] = step.Version, step.ConfigID
	annotations[annotationStep], annotations[annotationTask] = step.ID, step.TaskID
	annotations[annotationTarget] = step.Host.ClientID
	o.SetLabels(labels)
	o.SetAnnotations(annotations)
}

func isLabelValue(text string) bool {
	return text != "" && len(validation.IsValidLabelValue(text)) == 0
}
