-- +goose Up

CREATE TABLE api_tokens (
    id         TEXT PRIMARY KEY,
    name       TEXT NOT NULL,
    hash       TEXT NOT NULL UNIQUE,
    created_at BIGINT NOT NULL
);

CREATE TABLE join_tokens (
    id         TEXT PRIMARY KEY,
    hash       TEXT NOT NULL UNIQUE,
    pattern    TEXT NOT NULL,
    uses       BIGINT NOT NULL,
    used       BIGINT NOT NULL DEFAULT 0,
    replaces   BOOLEAN NOT NULL,
    created_by TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);

CREATE TABLE clients (
    id              TEXT PRIMARY KEY,
    public_key_hash TEXT NOT NULL,
    joined_at       BIGINT NOT NULL,
    revoked_at      BIGINT NOT NULL DEFAULT 0,
    labels          TEXT NOT NULL DEFAULT '{}',
    hostname        TEXT NOT NULL DEFAULT '',
    os              TEXT NOT NULL DEFAULT '',
    arch            TEXT NOT NULL DEFAULT '',
    agent_version   TEXT NOT NULL DEFAULT '',
    node_id         TEXT NOT NULL DEFAULT '',
    address         TEXT NOT NULL DEFAULT '',
    journal_id      TEXT NOT NULL DEFAULT '',
    generation      BIGINT NOT NULL DEFAULT 0,
    boot_id         TEXT NOT NULL DEFAULT '',
    session_epoch   BIGINT NOT NULL DEFAULT 0,
    connected       BOOLEAN NOT NULL DEFAULT FALSE,
    goodbye         BOOLEAN NOT NULL DEFAULT FALSE,
    connected_at    BIGINT NOT NULL DEFAULT 0,
    disconnected_at BIGINT NOT NULL DEFAULT 0,
    last_seen_at    BIGINT NOT NULL DEFAULT 0
);
CREATE INDEX clients_of_node ON clients (node_id) WHERE connected;

-- Who used a token, so that an agent whose answer was lost may ask again.
CREATE TABLE join_redemptions (
    token_id        TEXT NOT NULL REFERENCES join_tokens (id),
    client_id       TEXT NOT NULL REFERENCES clients (id),
    public_key_hash TEXT NOT NULL,
    redeemed_at     BIGINT NOT NULL,
    PRIMARY KEY (token_id, client_id, public_key_hash)
);

CREATE TABLE certificates (
    client_id       TEXT NOT NULL REFERENCES clients (id),
    serial          TEXT NOT NULL,
    public_key_hash TEXT NOT NULL,
    not_after       BIGINT NOT NULL,
    issued_at       BIGINT NOT NULL,
    revoked_at      BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (client_id, serial)
);

CREATE TABLE projects (
    id          TEXT PRIMARY KEY,
    name        TEXT NOT NULL UNIQUE,
    description TEXT NOT NULL,
    type        TEXT NOT NULL,
    spec        TEXT NOT NULL,
    created_at  BIGINT NOT NULL,
    updated_at  BIGINT NOT NULL
);

CREATE TABLE versions (
    id         TEXT PRIMARY KEY,
    project_id TEXT NOT NULL REFERENCES projects (id),
    name       TEXT NOT NULL,
    status     TEXT NOT NULL,
    spec       TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    UNIQUE (project_id, name)
);

CREATE TABLE tasks (
    id          TEXT PRIMARY KEY,
    project_id  TEXT NOT NULL REFERENCES projects (id),
    version_id  TEXT REFERENCES versions (id),
    action      TEXT NOT NULL,
    targets     TEXT NOT NULL,
    strategy    TEXT NOT NULL,
    override    TEXT NOT NULL,
    waves       TEXT NOT NULL,
    status      TEXT NOT NULL,
    phase       TEXT NOT NULL,
    wave        BIGINT NOT NULL DEFAULT 0,
    reason      TEXT NOT NULL DEFAULT '',
    halted      BOOLEAN NOT NULL DEFAULT FALSE,
    soak_until  BIGINT NOT NULL DEFAULT 0,
    workflow_id TEXT NOT NULL UNIQUE,
    created_by  TEXT NOT NULL,
    created_at  BIGINT NOT NULL,
    updated_at  BIGINT NOT NULL,
    finished_at BIGINT NOT NULL DEFAULT 0
);
CREATE INDEX tasks_by_age ON tasks (created_at, id);
CREATE INDEX tasks_of_project ON tasks (project_id, created_at, id);
CREATE INDEX tasks_unfinished ON tasks (created_at, id) WHERE finished_at = 0;

-- The row of a target is also the lock of its steps: whoever writes to either holds it, and takes several in the order
-- of (task_id, client_id).
CREATE TABLE task_targets (
    task_id             TEXT NOT NULL REFERENCES tasks (id) ON DELETE CASCADE,
    client_id           TEXT NOT NULL,
    wave                BIGINT NOT NULL,
    state               TEXT NOT NULL,
    previous_version    TEXT NOT NULL DEFAULT '',
    previous_version_id TEXT NOT NULL DEFAULT '',
    error               TEXT NOT NULL DEFAULT '',
    exit_code           BIGINT,
    started_at          BIGINT NOT NULL DEFAULT 0,
    finished_at         BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (task_id, client_id)
) WITHOUT ROWID;
CREATE INDEX task_targets_by_state ON task_targets (task_id, state, wave);

CREATE TABLE steps (
    id               TEXT PRIMARY KEY,
    task_id          TEXT NOT NULL REFERENCES tasks (id) ON DELETE CASCADE,
    name             TEXT NOT NULL,
    client_id        TEXT NOT NULL,
    epoch            BIGINT NOT NULL,
    action           TEXT NOT NULL,
    project_id       TEXT NOT NULL,
    version_id       TEXT NOT NULL,
    previous_version TEXT NOT NULL,
    chunk            BIGINT NOT NULL DEFAULT 0,
    state            TEXT NOT NULL DEFAULT 'pending',
    dispatched_at    BIGINT NOT NULL DEFAULT 0,
    recorded_at      BIGINT NOT NULL DEFAULT 0, -- when its agent's final result was stored
    exit_code        BIGINT,
    error            TEXT NOT NULL DEFAULT '',
    stdout_tail      BLOB,
    stderr_tail      BLOB,
    started_at       BIGINT NOT NULL DEFAULT 0,
    finished_at      BIGINT NOT NULL DEFAULT 0,
    log_end          BIGINT NOT NULL DEFAULT 0,
    UNIQUE (task_id, name, client_id, epoch)
);
CREATE INDEX steps_of_chunk ON steps (task_id, name, chunk);
CREATE INDEX steps_dispatched ON steps (client_id) WHERE state = 'dispatched';

-- What each host runs, for each project. A row in state "removed" stands for nothing; it is kept for as_of.
CREATE TABLE installations (
    project_id   TEXT NOT NULL,
    client_id    TEXT NOT NULL,
    version_id   TEXT NOT NULL,
    state        TEXT NOT NULL,
    attempted_id TEXT NOT NULL DEFAULT '',
    task_id      TEXT NOT NULL,
    as_of        BIGINT NOT NULL, -- when the step that wrote this was dispatched; an older step's late result changes nothing
    updated_at   BIGINT NOT NULL,
    PRIMARY KEY (project_id, client_id)
) WITHOUT ROWID;
CREATE INDEX installations_of_client ON installations (client_id);

-- The last sequence number given in each task. Its row lock makes numbers commit in their order.
CREATE TABLE task_log_heads (
    task_id TEXT PRIMARY KEY REFERENCES tasks (id) ON DELETE CASCADE,
    seq     BIGINT NOT NULL DEFAULT 0
);

-- How far the spool of each step is stored. Written under the lock of the task's head.
CREATE TABLE step_logs (
    step_id  TEXT PRIMARY KEY,
    position BIGINT NOT NULL
) WITHOUT ROWID;

-- No foreign keys here: appending is the hottest path, and the head has checked the task.
CREATE TABLE task_logs (
    task_id       TEXT NOT NULL,
    seq           BIGINT NOT NULL,
    step_id       TEXT NOT NULL,
    client_id     TEXT NOT NULL,
    position      BIGINT NOT NULL,
    next          BIGINT NOT NULL,
    stream        TEXT NOT NULL,
    stream_offset BIGINT NOT NULL,
    at            BIGINT NOT NULL,
    data          BLOB NOT NULL,
    PRIMARY KEY (task_id, seq)
);
CREATE INDEX task_logs_of_client ON task_logs (task_id, client_id, seq);
