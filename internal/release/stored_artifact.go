package release

import (
	"fmt"
	"time"
)

// StoredArtifact is an artifact that was uploaded to the server.
type StoredArtifact struct {
	SHA256    string    `json:"sha256" doc:"Of its content; it is named by this"`
	Size      int64     `json:"size" doc:"In bytes"`
	Name      string    `json:"name,omitempty" doc:"As it was uploaded"`
	CreatedAt time.Time `json:"created_at"`
	CreatedBy string    `json:"created_by,omitempty"`
	LastUsed  time.Time `json:"last_used" doc:"Uploaded, named by a version, or fetched by an agent; to the hour"`
	Versions  int       `json:"versions" doc:"How many versions use it. It can be deleted when none does"`
}

// UploadedArtifacts gives the artifacts of a configuration that have no URL, and so have to be on the server, by where they are named,
// such as "script.artifacts[0]".
func (s Spec) UploadedArtifacts() map[string]Artifact {
	uploaded := make(map[string]Artifact)
	if s.Script != nil {
		for i, a := range s.Script.Artifacts {
			if a.URL == "" {
				uploaded[fmt.Sprintf("script.artifacts[%d]", i)] = a
			}
		}
	}
	return uploaded
}
