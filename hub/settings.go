package hub

import (
	"github.com/quic-go/quic-go"

	"github.com/quicflow/quicflow/internal/config"
)

// Settings gives the part of a Config that a configuration file says.
func Settings(c config.Config) Config {
	session, message, q := c.Session, c.Message, c.QUIC
	return Config{
		Addr:                   c.Server.Addr,
		MaxClients:             c.Server.MaxClients,
		ClassicKeyExchange:     !c.TLS.PostQuantum,
		HeartbeatInterval:      session.HeartbeatInterval.Std(),
		HeartbeatTimeout:       session.HeartbeatTimeout.Std(),
		HeartbeatCheckInterval: session.HeartbeatCheckInterval.Std(),
		MaxTimeoutCount:        session.MaxTimeoutCount,
		OfflineGrace:           session.OfflineGrace.Std(),
		DrainTimeout:           session.DrainTimeout.Std(),
		DrainAddress:           session.DrainAddress,
		MaxHandshakes:          session.MaxHandshakes,
		MaxAdmissions:          session.MaxAdmissions,
		MaxEnrolments:          session.MaxEnrolments,
		WorkerCount:            message.WorkerCount,
		QueueSize:              message.TaskQueueSize,
		HandlerTimeout:         message.HandlerTimeout.Std(),
		MaxPromises:            message.MaxPromises,
		PromiseWarnThreshold:   message.PromiseWarnThreshold,
		DefaultTimeout:         message.DefaultMessageTimeout.Std(),
		LogBuffer:              int64(c.Logs.MaxBufferedBytes),
		LogCredit:              int64(c.Logs.CreditBytes),
		MaxTransfers:           c.Artifacts.MaxTransfers,
		ArtifactBuffer:         int64(c.Artifacts.MaxBufferedBytes),
		QUIC: &quic.Config{
			MaxIdleTimeout:                 q.MaxIdleTimeout.Std(),
			MaxIncomingStreams:             int64(q.MaxIncomingStreams),
			MaxIncomingUniStreams:          int64(q.MaxIncomingUniStreams),
			InitialStreamReceiveWindow:     uint64(q.InitialStreamReceiveWindow),
			MaxStreamReceiveWindow:         uint64(q.MaxStreamReceiveWindow),
			InitialConnectionReceiveWindow: uint64(q.InitialConnectionReceiveWindow),
			MaxConnectionReceiveWindow:     uint64(q.MaxConnectionReceiveWindow),
		},
	}
}
