-- +goose Up
-- Of what client_facts holds, as its agent gave it; 0: nothing.
ALTER TABLE clients ADD COLUMN facts_hash BIGINT NOT NULL DEFAULT 0;

-- What agents say of their hosts: JSON objects. Apart from clients, whose rows are written with every session.
CREATE TABLE client_facts (
    client_id TEXT COLLATE "C" PRIMARY KEY REFERENCES clients (id) ON DELETE CASCADE,
    facts     TEXT NOT NULL
);

-- What the log of a task or job takes, and what of it is gone.
ALTER TABLE task_log_heads ADD COLUMN bytes      BIGINT NOT NULL DEFAULT 0; -- of data that is kept
ALTER TABLE task_log_heads ADD COLUMN cut_seq    BIGINT NOT NULL DEFAULT 0; -- up to this number records are gone
ALTER TABLE task_log_heads ADD COLUMN cut_bytes  BIGINT NOT NULL DEFAULT 0; -- removed because there were too many
ALTER TABLE task_log_heads ADD COLUMN cut_at     BIGINT NOT NULL DEFAULT 0; -- when that was done the last time
ALTER TABLE task_log_heads ADD COLUMN removed_at BIGINT NOT NULL DEFAULT 0; -- when all was removed because it was old

UPDATE task_log_heads SET bytes = (SELECT COALESCE(SUM(LENGTH(data)), 0) FROM task_logs WHERE task_logs.task_id = task_log_heads.task_id);

-- What retention looks for.
CREATE INDEX tasks_finished ON tasks (finished_at) WHERE finished_at > 0;
CREATE INDEX jobs_finished ON jobs (finished_at) WHERE finished_at > 0;

-- +goose Down
DROP INDEX jobs_finished;
DROP INDEX tasks_finished;
ALTER TABLE task_log_heads DROP COLUMN removed_at;
ALTER TABLE task_log_heads DROP COLUMN cut_at;
ALTER TABLE task_log_heads DROP COLUMN cut_bytes;
ALTER TABLE task_log_heads DROP COLUMN cut_seq;
ALTER TABLE task_log_heads DROP COLUMN bytes;
DROP TABLE client_facts;
ALTER TABLE clients DROP COLUMN facts_hash;
