//go:build !linux

package journal

// identify knows nothing here: a journal that was restored from a copy is only noticed where its generation went back.
func identify(string) (fileID, bool) { return fileID{}, false }
