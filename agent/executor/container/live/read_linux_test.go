package live

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"

	"github.com/quicflow/quicflow/agent/executor"
)

func read(step *executor.Step, name string) string {
	text, _ := os.ReadFile(filepath.Join(step.Dir, name))
	return string(text)
}

// temporary is the name of a step's container until it takes over.
func (p *project) temporary(step *executor.Step) string {
	sum := sha256.Sum256([]byte(step.ID))
	return p.name + "-new-" + hex.EncodeToString(sum[:4])
}
