package workflows

import "go.temporal.io/sdk/temporal"

// Search attributes of release workflows, all of type Keyword.
var (
	AttributeProject = temporal.NewSearchAttributeKeyKeyword("QuicFlowProject")
	AttributeVersion = temporal.NewSearchAttributeKeyKeyword("QuicFlowVersion")
	AttributeStatus  = temporal.NewSearchAttributeKeyKeyword("QuicFlowStatus")
)
