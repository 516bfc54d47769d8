// Package wire is the frame codec between hub and agent: a 4-byte big-endian length, then that many bytes of protobuf.
//
// It also names what both sides have to agree on below the messages: ALPNs, limits and close codes.
package wire

import "github.com/quic-go/quic-go"

// The ALPNs of the one port of a hub.
const (
	ALPN      = "quicflow/1"       // main; a client certificate is mandatory
	ALPNEnrol = "quicflow-enrol/1" // enrolment; a client certificate is needed for a renewal only
)

// Protocol is the version that Hello carries.
const Protocol = 1

// The limits of a frame's payload, in bytes.
const (
	MaxFrame      = 1 << 20             // any frame
	MaxHelloFrame = 64 << 10            // what a peer may send before it is accepted, and any enrolment frame
	MaxLogFrame   = 32<<10 - HeaderSize // a log record; with its length 32 KiB
)

// MinLogCredit is the least that a LogCredit grants, in bytes: two log frames.
const MinLogCredit = 2 * (MaxLogFrame + HeaderSize)

// ArtifactWindow is what a hub may send of an artifact before its agent has read it, in bytes. It is a third of what an agent's connection
// may hold, so that the control stream has room beside it.
const ArtifactWindow = 2 << 20

// Close codes: why one side closed a connection. The reason phrase beside the code is for people.
const (
	CloseNormal        quic.ApplicationErrorCode = 0 // on purpose, after a Goodbye
	CloseProtocol      quic.ApplicationErrorCode = 1 // the peer broke the protocol: garbage, truncation, a foreign step id
	CloseFrameTooLarge quic.ApplicationErrorCode = 2
	CloseTakenOver     quic.ApplicationErrorCode = 3 // a newer session of the same agent replaced this one
	CloseHeartbeat     quic.ApplicationErrorCode = 4 // too many heartbeats were missed
	CloseDraining      quic.ApplicationErrorCode = 5 // the hub is stopping
	CloseRefused       quic.ApplicationErrorCode = 6 // the session was never accepted; a Refusal came before
	CloseInternal      quic.ApplicationErrorCode = 7 // the hub could not store what it was sent; connect and send again
	CloseRevoked       quic.ApplicationErrorCode = 8 // the agent's certificates were revoked while it was connected
	CloseOverloaded    quic.ApplicationErrorCode = 9 // too many agents come at this moment; come back soon
)
