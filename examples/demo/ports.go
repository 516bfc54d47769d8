package main

import (
	"net"
	"strconv"
)

const loopback = "127.0.0.1"

// tcpPort gives the wanted port if it is free, else any free one.
func tcpPort(wanted int) (string, error) {
	l, err := net.Listen("tcp", net.JoinHostPort(loopback, strconv.Itoa(wanted)))
	if err != nil {
		if l, err = net.Listen("tcp", net.JoinHostPort(loopback, "0")); err != nil {
			return "", err
		}
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// udpPort does so for UDP.
func udpPort(wanted int) (string, error) {
	l, err := net.ListenPacket("udp", net.JoinHostPort(loopback, strconv.Itoa(wanted)))
	if err != nil {
		if l, err = net.ListenPacket("udp", net.JoinHostPort(loopback, "0")); err != nil {
			return "", err
		}
	}
	defer l.Close()
	return l.LocalAddr().String(), nil
}
