-- +goose Up

-- Commands for hosts; one with a single host, too. The row is also the lock of all that belongs to the job: whoever writes its
-- targets holds it. It is small, as each result writes its counts; what does not change is in job_specs.
CREATE TABLE jobs (
    num          INTEGER PRIMARY KEY AUTOINCREMENT, -- for the keys of what belongs to the job; rises
    id           TEXT NOT NULL UNIQUE,
    kind         TEXT NOT NULL,
    command_type TEXT NOT NULL,
    selector     TEXT NOT NULL,
    options      TEXT NOT NULL,
    only_client  TEXT NOT NULL DEFAULT '', -- the host of a job with just one
    status       TEXT NOT NULL,
    reason       TEXT NOT NULL DEFAULT '',
    halted       BOOLEAN NOT NULL DEFAULT FALSE,
    created_by   TEXT NOT NULL,
    created_at   BIGINT NOT NULL,
    updated_at   BIGINT NOT NULL,
    finished_at  BIGINT NOT NULL DEFAULT 0,
    chunk        BIGINT NOT NULL DEFAULT 0, -- the last number given to a chunk
    decided      BIGINT NOT NULL DEFAULT 0, -- the last number given to a target that was decided
    total        BIGINT NOT NULL,
    n_pending    BIGINT NOT NULL,
    n_running    BIGINT NOT NULL DEFAULT 0,
    n_succeeded  BIGINT NOT NULL DEFAULT 0,
    n_failed     BIGINT NOT NULL DEFAULT 0,
    n_timeout    BIGINT NOT NULL DEFAULT 0,
    n_refused    BIGINT NOT NULL DEFAULT 0,
    n_unknown    BIGINT NOT NULL DEFAULT 0,
    n_offline    BIGINT NOT NULL DEFAULT 0,
    n_cancelled  BIGINT NOT NULL DEFAULT 0,
    n_skipped    BIGINT NOT NULL DEFAULT 0
);
CREATE INDEX jobs_unfinished ON jobs (num) WHERE finished_at = 0;
CREATE INDEX jobs_of_client ON jobs (only_client, num);

CREATE TABLE job_specs (
    job     BIGINT PRIMARY KEY REFERENCES jobs (num) ON DELETE CASCADE,
    payload TEXT NOT NULL,
    clients TEXT NOT NULL -- as they were asked for, a JSON array
);

-- The hosts of jobs. There are very many, and each is written at least three times: so no index by client or state (what asks by
-- client goes over the jobs), no foreign key (jobs_deleted does its work), and a number for the job, which is compared faster than a text.
-- With a rowid, as to update a row of a table without one takes half as long again.
CREATE TABLE job_targets (
    job           BIGINT NOT NULL,
    client_id     TEXT NOT NULL,
    place         BIGINT NOT NULL, -- among the job's targets, from 0
    state         TEXT NOT NULL DEFAULT 'pending',
    epoch         BIGINT NOT NULL DEFAULT 0,
    decided       BIGINT NOT NULL DEFAULT 0, -- numbered under the job's lock, so that numbers commit in their order; 0: it is open
    final         BOOLEAN NOT NULL DEFAULT FALSE, -- its agent's own word for this epoch, which no other replaces
    hopeless      BOOLEAN NOT NULL DEFAULT FALSE, -- another try would end the same
    waits         BOOLEAN NOT NULL DEFAULT FALSE, -- for a session
    not_before    BIGINT NOT NULL DEFAULT 0,
    started_at    BIGINT NOT NULL DEFAULT 0,
    finished_at   BIGINT NOT NULL DEFAULT 0,
    exit_code     BIGINT,
    error         TEXT NOT NULL DEFAULT '',
    stdout        BLOB,
    stderr        BLOB,
    stdout_bytes  BIGINT NOT NULL DEFAULT 0,
    stderr_bytes  BIGINT NOT NULL DEFAULT 0,
    result        BLOB,
    result_in_log BOOLEAN NOT NULL DEFAULT FALSE,
    log_end       BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (job, client_id)
);
CREATE INDEX job_targets_decided ON job_targets (job, decided) WHERE decided > 0;
CREATE INDEX job_targets_waiting ON job_targets (job, client_id) WHERE waits;

-- Hosts of a job that one dispatch carries out, as a JSON array. A new plan replaces all chunks of the old one.
CREATE TABLE job_chunks (
    job     BIGINT NOT NULL REFERENCES jobs (num) ON DELETE CASCADE,
    chunk   BIGINT NOT NULL,
    clients TEXT NOT NULL,
    PRIMARY KEY (job, chunk)
);

-- The heads of logs serve tasks and jobs; so triggers delete them, and the logs, with either.
CREATE TABLE log_heads_of_both (
    task_id TEXT PRIMARY KEY,
    seq     BIGINT NOT NULL DEFAULT 0
);
INSERT INTO log_heads_of_both (task_id, seq) SELECT task_id, seq FROM task_log_heads;
DROP TABLE task_log_heads;
ALTER TABLE log_heads_of_both RENAME TO task_log_heads;

-- +goose StatementBegin
CREATE TRIGGER jobs_deleted AFTER DELETE ON jobs BEGIN
    DELETE FROM job_targets WHERE job = OLD.num;
    DELETE FROM task_log_heads WHERE task_id = OLD.id;
    DELETE FROM step_logs WHERE step_id > OLD.id || '/' AND step_id < OLD.id || '0'; -- what comes after '/'
    DELETE FROM task_logs WHERE task_id = OLD.id;
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER tasks_deleted AFTER DELETE ON tasks BEGIN
    DELETE FROM task_log_heads WHERE task_id = OLD.id;
    DELETE FROM step_logs WHERE step_id > OLD.id || '/' AND step_id < OLD.id || '0'; -- what comes after '/'
    DELETE FROM task_logs WHERE task_id = OLD.id;
END;
-- +goose StatementEnd

-- +goose Down
DROP TRIGGER jobs_deleted;
DROP TRIGGER tasks_deleted;
DELETE FROM task_logs WHERE task_id IN (SELECT id FROM jobs);
DELETE FROM step_logs WHERE substr(step_id, 1, instr(step_id, '/') - 1) IN (SELECT id FROM jobs);
CREATE TABLE log_heads_of_tasks (
    task_id TEXT PRIMARY KEY REFERENCES tasks (id) ON DELETE CASCADE,
    seq     BIGINT NOT NULL DEFAULT 0
);
INSERT INTO log_heads_of_tasks (task_id, seq) SELECT task_id, seq FROM task_log_heads WHERE task_id IN (SELECT id FROM tasks);
DROP TABLE task_log_heads;
ALTER TABLE log_heads_of_tasks RENAME TO task_log_heads;
DROP TABLE job_chunks;
DROP TABLE job_targets;
DROP TABLE job_specs;
DROP TABLE jobs;
