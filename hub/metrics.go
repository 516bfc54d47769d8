package hub

import (
	"io"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/quicflow/quicflow/internal/telemetry"
)

// Metrics counts what a hub does. It is for one hub at a time, and may outlive it.
type Metrics struct {
	hub atomic.Pointer[Hub] // the one that runs; its gauges are read from it

	connections, disconnects, refusals, enrolments     prometheus.Counter
	resumed                                            prometheus.Counter
	refusalsBy                                         *prometheus.CounterVec
	messagesSent, messagesReceived, messagesFailed     prometheus.Counter
	bytesSent, bytesReceived                           prometheus.Counter
	heartbeatsSent, heartbeatsReceived, heartbeatsLate prometheus.Counter
	promisesCreated, promisesCompleted                 prometheus.Counter
	promisesTimedOut, promisesFailed                   prometheus.Counter
	broadcasts, broadcastTargets                       prometheus.Counter
	results, logRecords, logBytes, storeErrors         prometheus.Counter
	encodingErrors, decodingErrors, networkErrors      prometheus.Counter
	messagesRejected                                   prometheus.Counter
	transfers, transfersFailed, transferBytes          prometheus.Counter
	handlerDuration                                    prometheus.Histogram
	requestDuration                                    timing
	throughput                                         throughput
}

// NewMetrics makes the metrics of a hub and registers them. A nil registerer is fine: they are then seen by no one.
func NewMetrics(reg prometheus.Registerer) (*Metrics, error) {
	m := &Metrics{}
	all := []prometheus.Collector{
		m.gauge(telemetry.ConnectedClients, "Agents with an accepted session.", func(h *Hub) float64 { return float64(h.Connected()) }),
		m.gauge(telemetry.SessionsReconnecting, "Agents whose session was lost within the grace.", func(h *Hub) float64 { return float64(h.reconnecting()) }),
		m.gauge(telemetry.ClientsMax, "Sessions that there may be.", func(h *Hub) float64 { return float64(h.cfg.MaxClients) }),
		m.gauge(telemetry.HandshakesActive, "TLS handshakes in progress.", func(h *Hub) float64 { return float64(len(h.handshakes)) }),
		m.gauge(telemetry.HandshakesMax, "TLS handshakes that may be in progress.", func(h *Hub) float64 { return float64(cap(h.handshakes)) }),
		m.gauge(telemetry.AdmissionsActive, "Connections between their handshake and Welcome.", func(h *Hub) float64 { return float64(len(h.admissions)) }),
		m.gauge(telemetry.MessageThroughput, "Control frames a second, queued and received, in the last 10 s.", func(*Hub) float64 { return m.throughput.rate(time.Now(), m.messages()) }),
		m.gauge(telemetry.LatencyAverage, "Average time from a request to its answer in the last minute.", func(*Hub) float64 { return m.requestDuration.recent.at(time.Now()).average() }),
		m.gauge(telemetry.LatencyP50, "Median time from a request to its answer in the last minute.", m.quantile(0.5)),
		m.gauge(telemetry.LatencyP95, "95th percentile of the time from a request to its answer in the last minute.", m.quantile(0.95)),
		m.gauge(telemetry.LatencyP99, "99th percentile of the time from a request to its answer in the last minute.", m.quantile(0.99)),
		m.gauge(telemetry.PromiseMax, "Requests that may await an answer.", func(h *Hub) float64 { return float64(h.cfg.MaxPromises) }),
		m.gauge(telemetry.LogBytesMax, "Bytes of logs that may be on their way to the store.", func(h *Hub) float64 { return float64(h.cfg.LogBuffer) }),
		m.gauge(telemetry.PromiseActive, "Requests awaiting an answer.", func(h *Hub) float64 { return float64(h.promises.Load()) }),
		m.gauge(telemetry.LogBytesBuffered, "Bytes of logs on their way to the store.", func(h *Hub) float64 {
			_, buffered := h.credits.sums()
			return float64(buffered)
		}),
		m.gauge(telemetry.LogCreditBytes, "Bytes of logs that agents may send and have not sent.", func(h *Hub) float64 {
			unused, _ := h.credits.sums()
			return float64(unused)
		}),
		m.gauge(telemetry.DispatcherQueueDepth, "Messages of agents that wait for a worker.", func(h *Hub) float64 { queued, _ := h.messages.load(); return float64(queued) }),
		m.gauge(telemetry.DispatcherWorkersBusy, "Handlers of messages that have not returned.", func(h *Hub) float64 { _, busy := h.messages.load(); return float64(busy) }),
		m.gauge(telemetry.ArtifactTransfersActive, "Artifacts that are being sent.", func(h *Hub) float64 { _, busy := h.couriers.load(); return float64(busy) }),
		m.gauge(telemetry.ArtifactTransfersWaiting, "Artifacts that agents asked for and that wait for their turn.", func(h *Hub) float64 { waiting, _ := h.couriers.load(); return float64(waiting) }),
		m.gauge(telemetry.UptimeSeconds, "Time since the hub started.", func(h *Hub) float64 { return h.cfg.Now().Sub(h.startedAt).Seconds() }),
	}
	counter := func(field *prometheus.Counter, name, help string) {
		*field = prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
		all = append(all, *field)
	}
	counter(&m.connections, telemetry.TotalConnections, "Sessions accepted.")
	counter(&m.disconnects, telemetry.TotalDisconnects, "Accepted sessions that ended.")
	counter(&m.refusals, telemetry.HandshakesRefusedTotal, "Connections, sessions and enrolments refused, for whatever reason.")
	counter(&m.resumed, telemetry.SessionsResumedTotal, "Sessions accepted whose TLS session was resumed.")
	counter(&m.enrolments, telemetry.EnrolmentsTotal, "Certificates issued to agents.")
	counter(&m.messagesSent, telemetry.MessagesSentTotal, "Control frames queued for agents.")
	counter(&m.messagesReceived, telemetry.MessagesReceivedTotal, "Control frames received from agents.")
	counter(&m.messagesFailed, telemetry.MessagesFailedTotal, "Control frames that could not be queued.")
	counter(&m.bytesSent, telemetry.BytesSentTotal, "Bytes written to streams.")
	counter(&m.bytesReceived, telemetry.BytesReceivedTotal, "Bytes read from streams.")
	counter(&m.heartbeatsReceived, telemetry.HeartbeatsReceived, "Heartbeats received from agents.")
	counter(&m.heartbeatsSent, telemetry.HeartbeatsSent, "Heartbeats answered.")
	counter(&m.heartbeatsLate, telemetry.HeartbeatTimeouts, "Checks that found a heartbeat too old.")
	counter(&m.promisesCreated, telemetry.PromiseCreatedTotal, "Requests that began to await an answer.")
	counter(&m.promisesCompleted, telemetry.PromiseCompletedTotal, "Requests answered.")
	counter(&m.promisesTimedOut, telemetry.PromiseTimeoutsTotal, "Requests without an answer in time.")
	counter(&m.promisesFailed, telemetry.PromiseFailedTotal, "Requests cancelled, not sent, or whose session ended.")
	counter(&m.broadcasts, telemetry.BroadcastsSentTotal, "Broadcasts begun.")
	counter(&m.broadcastTargets, telemetry.BroadcastTargetsTotal, "Targets of broadcasts.")
	counter(&m.results, telemetry.ResultsStoredTotal, "Results stored and acknowledged, repeated ones included.")
	counter(&m.logRecords, telemetry.LogRecordsStoredTotal, "Log records stored, repeated ones included.")
	counter(&m.logBytes, telemetry.LogBytesStoredTotal, "Bytes of log output stored, repeated ones included.")
	counter(&m.storeErrors, telemetry.StoreErrorsTotal, "Attempts to store results or logs that failed; they are tried again.")
	counter(&m.encodingErrors, telemetry.EncodingErrorsTotal, "Frames that could not be encoded.")
	counter(&m.decodingErrors, telemetry.DecodingErrorsTotal, "Frames too large, truncated or malformed.")
	counter(&m.networkErrors, telemetry.NetworkErrorsTotal, "Accepted sessions that ended without a goodbye by fault of the network or the agent.")
	counter(&m.messagesRejected, telemetry.DispatcherRejectedTotal, "Messages of agents answered as overloaded, or that met a stopping hub.")
	counter(&m.transfers, telemetry.ArtifactTransfersTotal, "Artifacts sent to agents, to their end.")
	counter(&m.transfersFailed, telemetry.ArtifactTransfersFailed, "Artifacts that agents asked for and did not get, or not to their end; they ask again.")
	counter(&m.transferBytes, telemetry.ArtifactBytesSentTotal, "Bytes of artifacts sent to agents.")
	m.refusalsBy = prometheus.NewCounterVec(prometheus.CounterOpts{Name: telemetry.RefusalsTotal,
		Help: "Connections, sessions and enrolments refused, by reason."}, []string{telemetry.LabelReason})
	for _, reason := range refusalReasons() {
		m.refusalsBy.WithLabelValues(reason)
	}
	m.requestDuration.Histogram = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name:    telemetry.RequestDuration,
		Help:    "Time from a request to its answer.",
		Buckets: prometheus.ExponentialBuckets(0.0005, 2, 16),
	})
	m.handlerDuration = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name:    telemetry.HandlerDuration,
		Help:    "Time that a handler took for a message of an agent, the time after its deadline included.",
		Buckets: prometheus.ExponentialBuckets(0.0005, 2, 18),
	})
	all = append(all, m.requestDuration.Histogram, m.handlerDuration, m.refusalsBy)
	if reg == nil {
		return m, nil
	}
	for _, c := range all {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (m *Metrics) gauge(name, help string, value func(*Hub) float64) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 {
		if h := m.hub.Load(); h != nil {
			return value(h)
		}
		return 0
	})
}

// refuse counts a connection, session or enrolment that was refused.
func (m *Metrics) refuse(reason string) {
	m.refusals.Inc()
	m.refusalsBy.WithLabelValues(reason).Inc()
}

// messages counts control frames, both ways.
func (m *Metrics) messages() float64 { return valueOf(m.messagesSent) + valueOf(m.messagesReceived) }

func valueOf(c prometheus.Counter) float64 {
	var out dto.Metric
	if err := c.Write(&out); err != nil {
		return 0 // a counter without exemplars cannot fail
	}
	return out.Counter.GetValue()
}

func (m *Metrics) quantile(q float64) func(*Hub) float64 {
	return func(*Hub) float64 { return m.requestDuration.recent.at(time.Now()).quantile(q) }
}

// reader counts the bytes read from r.
func (m *Metrics) reader(r io.Reader) io.Reader { return countingReader{r, m.bytesReceived} }

type countingReader struct {
	io.Reader
	bytes prometheus.Counter
}

func (c countingReader) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.bytes.Add(float64(n))
	return n, err
}

// writer counts the bytes written to w.
func (m *Metrics) writer(w io.Writer) io.Writer { return countingWriter{w, m.bytesSent} }

type countingWriter struct {
	io.Writer
	bytes prometheus.Counter
}

func (c countingWriter) Write(p []byte) (int, error) {
	n, err := c.Writer.Write(p)
	c.bytes.Add(float64(n))
	return n, err
}
