package agent

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// networkEvents is a netlink socket on which the kernel tells of new addresses and routes.
type networkEvents struct {
	file   *os.File
	buffer []byte
}

func openNetworkEvents() (*networkEvents, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	groups := uint32(unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV6_IFADDR | unix.RTMGRP_IPV4_ROUTE | unix.RTMGRP_IPV6_ROUTE)
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("bind netlink socket: %w", err)
	}
	return &networkEvents{file: os.NewFile(uintptr(fd), "netlink"), buffer: make([]byte, 4<<10)}, nil
}

// wait waits for a new address or route. It reports false when there will be no more.
func (e *networkEvents) wait() bool {
	for {
		n, err := e.file.Read(e.buffer)
		if errors.Is(err, unix.ENOBUFS) {
			return true // more than the kernel kept for us
		}
		if err != nil {
			return false
		}
		messages, err := syscall.ParseNetlinkMessage(e.buffer[:n])
		if err != nil {
			continue
		}
		for _, m := range messages {
			if m.Header.Type == unix.RTM_NEWADDR || m.Header.Type == unix.RTM_NEWROUTE {
				return true
			}
		}
	}
}

func (e *networkEvents) close() { _ = e.file.Close() }
