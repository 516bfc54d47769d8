-- +goose Up
-- What was deleted stays, for the history of tasks: its name is free again, and is kept as former_name.
ALTER TABLE projects ADD COLUMN revision    BIGINT NOT NULL DEFAULT 1;
ALTER TABLE projects ADD COLUMN deleted_at  BIGINT NOT NULL DEFAULT 0;
ALTER TABLE projects ADD COLUMN former_name TEXT NOT NULL DEFAULT '';
ALTER TABLE versions ADD COLUMN revision    BIGINT NOT NULL DEFAULT 1;
ALTER TABLE versions ADD COLUMN deleted_at  BIGINT NOT NULL DEFAULT 0;
ALTER TABLE versions ADD COLUMN former_name TEXT NOT NULL DEFAULT '';

CREATE TABLE environments (
    id          TEXT PRIMARY KEY,
    project_id  TEXT NOT NULL REFERENCES projects (id),
    name        TEXT COLLATE "C" NOT NULL,
    description TEXT NOT NULL,
    selector    TEXT NOT NULL,
    strategy    TEXT NOT NULL,
    revision    BIGINT NOT NULL DEFAULT 1,
    deleted_at  BIGINT NOT NULL DEFAULT 0,
    created_at  BIGINT NOT NULL,
    updated_at  BIGINT NOT NULL
);
CREATE UNIQUE INDEX environments_by_name ON environments (project_id, name) WHERE deleted_at = 0;

-- A value is in one of value and sealed, which is encrypted.
CREATE TABLE variables (
    project_id     TEXT NOT NULL REFERENCES projects (id),
    environment_id TEXT NOT NULL, -- empty: of the project itself
    name           TEXT COLLATE "C" NOT NULL,
    value          TEXT NOT NULL,
    secret         BOOLEAN NOT NULL,
    sealed         BYTEA,
    description    TEXT NOT NULL,
    revision       BIGINT NOT NULL DEFAULT 1,
    created_at     BIGINT NOT NULL,
    updated_at     BIGINT NOT NULL,
    PRIMARY KEY (project_id, environment_id, name)
);

-- Configurations as tasks deploy them, by a hash of their content. They never change.
CREATE TABLE configs (
    id             TEXT PRIMARY KEY,
    type           TEXT NOT NULL,
    project_id     TEXT NOT NULL,
    version_id     TEXT NOT NULL,
    environment_id TEXT NOT NULL,
    config         TEXT NOT NULL,
    secrets        TEXT NOT NULL, -- names of variables, a JSON array
    created_at     BIGINT NOT NULL,
    used_at        BIGINT NOT NULL -- when a task was last made with it
);

-- Empty: made before there were any.
ALTER TABLE tasks ADD COLUMN environment_id TEXT NOT NULL DEFAULT '';
ALTER TABLE tasks ADD COLUMN config_id TEXT NOT NULL DEFAULT '';
ALTER TABLE task_targets ADD COLUMN previous_config_id TEXT NOT NULL DEFAULT '';
ALTER TABLE steps ADD COLUMN config_id TEXT NOT NULL DEFAULT '';
ALTER TABLE installations ADD COLUMN config_id TEXT NOT NULL DEFAULT '';
ALTER TABLE installations ADD COLUMN attempted_config_id TEXT NOT NULL DEFAULT '';
CREATE INDEX tasks_of_version ON tasks (version_id);

-- +goose Down
DROP INDEX tasks_of_version;
ALTER TABLE installations DROP COLUMN attempted_config_id;
ALTER TABLE installations DROP COLUMN config_id;
ALTER TABLE steps DROP COLUMN config_id;
ALTER TABLE task_targets DROP COLUMN previous_config_id;
ALTER TABLE tasks DROP COLUMN config_id;
ALTER TABLE tasks DROP COLUMN environment_id;
DROP TABLE configs;
DROP TABLE variables;
DROP TABLE environments;
ALTER TABLE versions DROP COLUMN former_name;
ALTER TABLE versions DROP COLUMN deleted_at;
ALTER TABLE versions DROP COLUMN revision;
ALTER TABLE projects DROP COLUMN former_name;
ALTER TABLE projects DROP COLUMN deleted_at;
ALTER TABLE projects DROP COLUMN revision;
