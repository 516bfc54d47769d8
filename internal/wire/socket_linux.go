package wire

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// fills says whether more than a quarter of the buffer is taken.
func (s *UDPSocket) fills() (full, known bool) {
	_ = s.raw.Control(func(fd uintptr) {
		var info [unix.SK_MEMINFO_VARS]uint32
		size := uint32(unsafe.Sizeof(info))
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_MEMINFO,
			uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
		known = errno == 0
		full = info[unix.SK_MEMINFO_RMEM_ALLOC] > info[unix.SK_MEMINFO_RCVBUF]/4
	})
	return full, known
}
