-- +goose Up
-- No foreign key to the project: a schedule whose project is gone fails at its time, and says so.
CREATE TABLE schedules (
    id           TEXT COLLATE "C" PRIMARY KEY,
    name         TEXT COLLATE "C" NOT NULL,
    project_id   TEXT COLLATE "C" NOT NULL,
    task         TEXT NOT NULL, -- what it makes, as JSON
    at           BIGINT NOT NULL DEFAULT 0, -- once; 0: by cron
    cron         TEXT NOT NULL DEFAULT '',
    timezone     TEXT NOT NULL,
    overlap      TEXT NOT NULL,
    catchup      BIGINT NOT NULL, -- nanoseconds, as jitter
    jitter       BIGINT NOT NULL DEFAULT 0,
    paused       BOOLEAN NOT NULL DEFAULT FALSE,
    note         TEXT NOT NULL DEFAULT '',
    revision     BIGINT NOT NULL,
    in_effect    BIGINT NOT NULL DEFAULT 0, -- the revision that Temporal has
    since        BIGINT NOT NULL, -- when its times last changed
    accounted_to BIGINT NOT NULL, -- up to then each fire that was due has its row
    created_by   TEXT NOT NULL,
    created_at   BIGINT NOT NULL,
    updated_at   BIGINT NOT NULL,
    deleted_at   BIGINT NOT NULL DEFAULT 0 -- it goes once Temporal has forgotten it
);
CREATE UNIQUE INDEX schedules_by_name ON schedules (name) WHERE deleted_at = 0;
CREATE INDEX schedules_of_project ON schedules (project_id);

CREATE TABLE schedule_fires (
    schedule_id  TEXT COLLATE "C" NOT NULL REFERENCES schedules (id) ON DELETE CASCADE,
    due_at       BIGINT NOT NULL,
    state        TEXT NOT NULL,
    reason       TEXT NOT NULL DEFAULT '',
    triggered_by TEXT NOT NULL DEFAULT '',
    task_id      TEXT COLLATE "C" NOT NULL DEFAULT '',
    recorded_at  BIGINT NOT NULL,
    PRIMARY KEY (schedule_id, due_at)
);
CREATE INDEX schedule_fires_open ON schedule_fires (due_at) WHERE state = 'requested';

-- +goose Down
DROP TABLE schedule_fires;
DROP TABLE schedules;
