// Package telemetry holds the names that operators build dashboards and alerts on. A name is a contract: it is never changed.
package telemetry

// Names of the backbone's metrics.
const (
	ConnectedClients       = "quic_backbone_connected_clients"
	TotalConnections       = "quic_backbone_total_connections"
	TotalDisconnects       = "quic_backbone_total_disconnects"
	SessionsReconnecting   = "quic_backbone_sessions_reconnecting"
	HandshakesRefusedTotal = "quic_backbone_handshakes_refused_total"
	RefusalsTotal          = "quic_backbone_refusals_total" // all that HandshakesRefusedTotal has, by LabelReason
	HandshakesActive       = "quic_backbone_handshakes_active"
	HandshakesMax          = "quic_backbone_handshakes_max"
	AdmissionsActive       = "quic_backbone_admissions_active"
	SessionsResumedTotal   = "quic_backbone_sessions_resumed_total"
	ClientsMax             = "quic_backbone_clients_max"
	EnrolmentsTotal        = "quic_backbone_enrolments_total"
	MessagesSentTotal      = "quic_backbone_messages_sent_total"
	MessagesReceivedTotal  = "quic_backbone_messages_received_total"
	MessagesFailedTotal    = "quic_backbone_messages_failed_total"
	MessageThroughput      = "quic_backbone_message_throughput" // a second, sent and received
	BytesSentTotal         = "quic_backbone_bytes_sent_total"
	BytesReceivedTotal     = "quic_backbone_bytes_received_total"
	HeartbeatsReceived     = "quic_backbone_heartbeats_received_total"
	HeartbeatsSent         = "quic_backbone_heartbeats_sent_total" // the hub's answers to heartbeats
	HeartbeatTimeouts      = "quic_backbone_heartbeat_timeouts_total"
	PromiseCreatedTotal    = "quic_backbone_promise_created_total"
	PromiseCompletedTotal  = "quic_backbone_promise_completed_total"
	PromiseTimeoutsTotal   = "quic_backbone_promise_timeouts_total"
	PromiseFailedTotal     = "quic_backbone_promise_failed_total" // cancelled, or the session ended
	PromiseActive          = "quic_backbone_promise_active"
	PromiseMax             = "quic_backbone_promise_max"
	LatencyAverage         = "quic_backbone_latency_average_milliseconds"
	LatencyP50             = "quic_backbone_latency_p50_milliseconds"
	LatencyP95             = "quic_backbone_latency_p95_milliseconds"
	LatencyP99             = "quic_backbone_latency_p99_milliseconds"
	RequestDuration        = "quic_backbone_request_duration_seconds"
	BroadcastsSentTotal    = "quic_backbone_broadcasts_sent_total"
	BroadcastTargetsTotal  = "quic_backbone_broadcast_targets_total"
	ResultsStoredTotal     = "quic_backbone_results_stored_total"
	LogRecordsStoredTotal  = "quic_backbone_log_records_stored_total"
	LogBytesStoredTotal    = "quic_backbone_log_bytes_stored_total"
	LogBytesMax            = "quic_backbone_log_bytes_max"
	StoreErrorsTotal       = "quic_backbone_store_errors_total" // results or logs; they are tried again
	LogBytesBuffered       = "quic_backbone_log_bytes_buffered"
	LogCreditBytes         = "quic_backbone_log_credit_bytes" // granted to agents and not used
	EncodingErrorsTotal    = "quic_backbone_encoding_errors_total"
	DecodingErrorsTotal    = "quic_backbone_decoding_errors_total"
	NetworkErrorsTotal     = "quic_backbone_network_errors_total"
	UptimeSeconds          = "quic_backbone_uptime_seconds"

	DispatcherQueueDepth    = "quic_backbone_dispatcher_queue_depth"
	DispatcherWorkersBusy   = "quic_backbone_dispatcher_workers_busy"
	DispatcherRejectedTotal = "quic_backbone_dispatcher_rejected_total"
	HandlerDuration         = "quic_backbone_handler_duration_seconds"

	ArtifactTransfersActive  = "quic_backbone_artifact_transfers_active"
	ArtifactTransfersWaiting = "quic_backbone_artifact_transfers_waiting"
	ArtifactTransfersTotal   = "quic_backbone_artifact_transfers_total"
	ArtifactTransfersFailed  = "quic_backbone_artifact_transfers_failed_total"
	ArtifactBytesSentTotal   = "quic_backbone_artifact_bytes_sent_total"
)

// BuildInfo is always 1; its labels say what runs.
const BuildInfo = "quicflow_build_info"

// LabelReason is the label of RefusalsTotal.
const LabelReason = "reason"

// Names of the metrics of rollouts.
const (
	Tasks           = "quicflow_tasks"                    // by LabelStatus
	RolloutDuration = "quicflow_rollout_duration_seconds" // of tasks that ended, by LabelStatus
	StepsTotal      = "quicflow_steps_total"              // by LabelOutcome
)

// Names of the metrics of jobs. A single command is one, too.
const (
	Jobs          = "quicflow_jobs"                 // that have not ended, by LabelStatus
	JobDuration   = "quicflow_job_duration_seconds" // of jobs that ended, by LabelStatus
	CommandsTotal = "quicflow_commands_total"       // by LabelOutcome
)

// Labels of the metrics of rollouts and jobs.
const (
	LabelStatus  = "status"
	LabelOutcome = "outcome"
)
