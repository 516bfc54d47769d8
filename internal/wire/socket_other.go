//go:build !linux

package wire

// fills is not known here.
func (s *UDPSocket) fills() (full, known bool) { return false, false }
