package store

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/quicflow/quicflow/internal/release"
)

type Driver string

const (
	SQLite   Driver = "sqlite"
	Postgres Driver = "postgres"
)

type Config struct {
	Driver          Driver
	DSN             string
	MaxIdleConns    int
	MaxOpenConns    int
	ConnMaxLifetime time.Duration
	OfflineGrace    time.Duration
	Logger          *slog.Logger
	Now             func() time.Time
}

type Store struct{}

type JoinToken struct {
	ID, Hash, Pattern    string
	Uses                 int
	Replace              bool
	CreatedBy            string
	CreatedAt, ExpiresAt time.Time
}

type Redemption struct {
	TokenHash, ClientID, PublicKeyHash string
	At                                 time.Time
}

var ErrTokenUnknown, ErrTokenExpired, ErrTokenUsedUp, ErrIDNotAllowed, ErrIDTaken error

type ClientFilter struct {
	Status        release.ClientStatus
	Label, Search string
	Limit, Offset int
}
type TaskFilter struct {
	Project       string
	Status        release.Status
	Limit, Offset int
}
type TargetFilter struct {
	Wave          *int
	State         release.TargetState
	Limit, Offset int
}
type Progress struct {
	Status    release.Status
	Phase     release.Phase
	Wave      int
	Reason    string
	SoakUntil *time.Time
	At        time.Time
}
type ChunkPlan struct {
	Chunk  int
	NodeID string
	Size   int
}
type Conclusion struct {
	StepID string
	Target release.TargetState
	Error  string
	At     time.Time
}
type LogFilter struct{ ClientID string }
type InstallationFilter struct {
	Project, ClientID string
	Limit, Offset     int
}

var errTODO = errors.New("not implemented yet")

func Open(ctx context.Context, config Config) (*Store, error)                         { return nil, errTODO }
func (s *Store) Close() error                                                         { return errTODO }
func (s *Store) EnsureAdminToken(ctx context.Context, name, hash string) (bool, error) { return false, errTODO }
func (s *Store) PutToken(ctx context.Context, id, name, hash string) error            { return errTODO }
func (s *Store) TokenByHash(ctx context.Context, hash string) (string, error)         { return "", errTODO }
func (s *Store) CreateJoinToken(ctx context.Context, t JoinToken) error               { return errTODO }
func (s *Store) RedeemJoinToken(ctx context.Context, r Redemption) error              { return errTODO }
func (s *Store) RecordCertificate(ctx context.Context, clientID, serial string, notAfter time.Time, publicKeyHash string) error {
	return errTODO
}
func (s *Store) CertificateValid(ctx context.Context, clientID, serial string) (bool, error) {
	return false, errTODO
}
func (s *Store) RevokeClient(ctx context.Context, clientID string) error { return errTODO }
func (s *Store) ConnectClients(ctx context.Context, sessions []release.ClientSession) (map[string]int64, error) {
	return nil, errTODO
}
func (s *Store) DisconnectClients(ctx context.Context, ends []release.ClientEnd) error { return errTODO }
func (s *Store) TouchClients(ctx context.Context, nodeID string, ids []string, at time.Time) error {
	return errTODO
}
func (s *Store) ReleaseNode(ctx context.Context, nodeID string, at time.Time) error { return errTODO }
func (s *Store) ClientByID(ctx context.Context, id string) (release.Client, error) {
	return release.Client{}, errTODO
}
func (s *Store) Clients(ctx context.Context, f ClientFilter) ([]release.Client, int, error) {
	return nil, 0, errTODO
}
func (s *Store) CreateProject(ctx context.Context, p *release.Project) error { return errTODO }
func (s *Store) Project(ctx context.Context, ref string) (release.Project, error) {
	return release.Project{}, errTODO
}
func (s *Store) Projects(ctx context.Context) ([]release.Project, error)      { return nil, errTODO }
func (s *Store) CreateVersion(ctx context.Context, v *release.Version) error { return errTODO }
func (s *Store) VersionByID(ctx context.Context, id string) (release.Version, error) {
	return release.Version{}, errTODO
}
func (s *Store) Version(ctx context.Context, projectRef, ref string) (release.Version, error) {
	return release.Version{}, errTODO
}
func (s *Store) Versions(ctx context.Context, projectRef string) ([]release.Version, error) {
	return nil, errTODO
}
func (s *Store) SetVersionStatus(ctx context.Context, id string, status release.VersionStatus) (release.Version, error) {
	return release.Version{}, errTODO
}
func (s *Store) ResolveTargets(ctx context.Context, t release.Targets) ([]string, error) {
	return nil, errTODO
}
func (s *Store) CreateTask(ctx context.Context, t *release.Task, clientIDs []string) error {
	return errTODO
}
func (s *Store) Task(ctx context.Context, id string) (release.Task, error) {
	return release.Task{}, errTODO
}
func (s *Store) Tasks(ctx context.Context, f TaskFilter) ([]release.Task, int, error) {
	return nil, 0, errTODO
}
func (s *Store) Targets(ctx context.Context, taskID string, f TargetFilter) ([]release.Target, int, error) {
	return nil, 0, errTODO
}
func (s *Store) UnfinishedTasks(ctx context.Context) ([]release.Task, error)          { return nil, errTODO }
func (s *Store) SetProgress(ctx context.Context, taskID string, p Progress) error     { return errTODO }
func (s *Store) WaveCounts(ctx context.Context, taskID string) (map[int]release.Counts, error) {
	return nil, errTODO
}
func (s *Store) SetHalt(ctx context.Context, taskID string, halted bool) error { return errTODO }
func (s *Store) PlanChunks(ctx context.Context, taskID string, step release.StepName, wave int, size int, defaultNode string) ([]ChunkPlan, error) {
	return nil, errTODO
}
func (s *Store) ChunkSteps(ctx context.Context, taskID string, step release.StepName, chunk int) ([]release.Step, error) {
	return nil, errTODO
}
func (s *Store) MarkDispatched(ctx context.Context, taskID string, step release.StepName, clientIDs []string) (marked []string, halted bool, err error) {
	return nil, false, errTODO
}
func (s *Store) ConcludeSteps(ctx context.Context, conclusions []Conclusion) error { return errTODO }
func (s *Store) RecordResults(ctx context.Context, results []release.StepResult) ([]release.Step, error) {
	return nil, errTODO
}
func (s *Store) AppendLogs(ctx context.Context, records []release.LogRecord) ([]release.LogAck, error) {
	return nil, errTODO
}
func (s *Store) Logs(ctx context.Context, taskID string, afterSeq int64, filter LogFilter, limit int) ([]release.LogRecord, error) {
	return nil, errTODO
}
func (s *Store) LogHead(ctx context.Context, taskID string) (int64, error) { return 0, errTODO }
func (s *Store) LogsComplete(ctx context.Context, taskID string) (complete bool, missing []string, err error) {
	return false, nil, errTODO
}
func (s *Store) Installations(ctx context.Context, f InstallationFilter) ([]release.Installation, int, error) {
	return nil, 0, errTODO
}
