package workflows

import (
	"time"

	"go.temporal.io/sdk/workflow"

	"github.com/quicflow/quicflow/internal/job"
)

// Names of the activities of a BatchJobWorkflow.
const (
	ActivityLoadJob          = "LoadJob"
	ActivityRecordJob        = "RecordJob"
	ActivitySetJobHalt       = "SetJobHalt"
	ActivityPlanJobChunks    = "PlanJobChunks"
	ActivityDispatchJobChunk = "DispatchJobChunk"
	ActivityCountJob         = "CountJob"
	ActivityRetryJob         = "RetryJob"
	ActivityAwaitJobHosts    = "AwaitJobHosts"
)

// JobLoadRequest asks LoadJob for the JobPlan of a job.
type JobLoadRequest struct {
	JobID string
	Begin bool // write down that the job is running
	At    time.Time
}

// JobRequest asks CountJob for the JobStanding of a job.
type JobRequest struct {
	JobID string
}

// JobPlan is how a job goes over its hosts. The hosts themselves are in the store.
type JobPlan struct {
	Options job.Options // with defaults filled
	Total   int         // hosts
}

// JobProgressRequest asks RecordJob to write where a job stands.
type JobProgressRequest struct {
	JobID  string
	Status job.Status
	Reason string
	At     time.Time
}

// JobHaltRequest asks SetJobHalt to raise or lift the fence that lets no command of the job start.
type JobHaltRequest struct {
	JobID  string
	Halted bool
}

// JobChunksRequest asks PlanJobChunks to cut the hosts whose turn it is into chunks. It answers with a ChunkPlan.
type JobChunksRequest struct {
	JobID string
	Size  int      // hosts in a chunk, at most
	Avoid []string // queues that did not answer; their hosts are given to the hub that plans
}

// JobDispatchRequest asks DispatchJobChunk to have every host of a chunk run the command. It answers with a DispatchReport.
type JobDispatchRequest struct {
	JobID    string
	Chunk    int
	Parallel int  // hosts of the job at work at once on this hub, over all chunks that it has in flight
	Budget   int  // charged hosts that are tolerated before nothing new starts in this chunk; negative: any number
	Cancel   bool // start nothing; ask what was started to stop
}

// JobStanding is how many hosts of a job stand where.
type JobStanding struct {
	Counts  job.Counts
	Waiting int // of the pending ones, those that are offline and waited for
}

// JobRetryRequest asks RetryJob to decide which hosts are tried again, and to write that down.
type JobRetryRequest struct {
	JobID       string
	WaitOffline bool // hosts that are offline are waited for
}

// JobRetryAnswer is RetryJob's answer.
type JobRetryAnswer struct {
	JobStanding
	Retried int // hosts that are to be tried again, after Options.RetryInterval
}

// JobHostsRequest asks AwaitJobHosts to wait until some of the hosts that are waited for have a session. Those that have
// none by then are offline.
type JobHostsRequest struct {
	JobID string
	Until time.Time
}

// JobHostsAnswer is AwaitJobHosts' answer.
type JobHostsAnswer struct {
	Back int  // hosts whose turn it is now
	Over bool // no one is waited for any more
}

// Limits of a batch job's dispatching.
const (
	JobChunkSize = 1000
	// MaxOpenJobChunks is more than it takes to have all places at work filled: a chunk stays open as long as its slowest
	// host, and the others must not wait for that.
	MaxOpenJobChunks = 32
	// maxRoundChunks bounds what a round adds to the history; what is left is planned again.
	maxRoundChunks = 200
	// maxBatchHistory is how many events a run may have when a round begins. A round adds fewer than 2,000.
	maxBatchHistory = 3000
)

// hostsOptions are for AwaitJobHosts, which may take days. When its server dies another one takes over.
func hostsOptions(ctx workflow.Context) workflow.Context {
	options := workflow.GetActivityOptions(storeOptions(ctx))
	options.StartToCloseTimeout = job.MaxWaitOffline + time.Hour
	options.HeartbeatTimeout = 10 * time.Second
	options.WaitForCancellation = true
	return workflow.WithActivityOptions(ctx, options)
}

// shares divides the places at work among the hubs, by how many hosts each has to go over; each gets one at least.
func shares(chunks []Chunk, concurrency int) map[string]int {
	hosts, total := map[string]int{}, 0
	for _, c := range chunks {
		hosts[c.Queue] += c.Size
		total += c.Size
	}
	spare := max(0, concurrency-len(hosts))
	share := make(map[string]int, len(hosts))
	for _, c := range chunks {
		share[c.Queue] = 1 + spare*hosts[c.Queue]/max(1, total)
	}
	return share
}

// budgetLeft is how many more hosts may be charged before the job has failed; negative: any number.
func budgetLeft(o job.Options, total int, c job.Counts) int {
	if o.MaxFailures == nil {
		return -1
	}
	return max(0, o.MaxFailures.Of(total)-c.Charged())
}
