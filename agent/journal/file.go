package journal

import (
	"encoding/json"
)

// fileID tells a file from a copy of it.
type fileID struct {
	Inode uint64 `json:"inode"`
	Made  string `json:"made"` // when; empty where the file system does not know
}

// isCopyOf compares moments where both are known: a file keeps its own, and no copy can have it.
func (f fileID) isCopyOf(known fileID) bool {
	if f.Made != "" && known.Made != "" {
		return f.Made != known.Made
	}
	return f.Inode != known.Inode
}

func (f fileID) encode() ([]byte, error) { return json.Marshal(f) }

// decodeFileID reports false if there is nothing to compare with.
func decodeFileID(text []byte) (f fileID, ok bool) {
	return f, json.Unmarshal(text, &f) == nil && f.Inode != 0
}
