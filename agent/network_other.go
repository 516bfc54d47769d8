//go:build !linux

package agent

import "errors"

type networkEvents struct{}

func openNetworkEvents() (*networkEvents, error) {
	return nil, errors.ErrUnsupported
}

func (*networkEvents) wait() bool { return false }

func (*networkEvents) close() {}
