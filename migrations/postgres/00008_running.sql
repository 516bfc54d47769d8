-- +goose Up
-- Since when, and by which task, the version of an installation runs, and what its agent reported to run. A change that failed later
-- leaves all of them.
ALTER TABLE installations ADD COLUMN installed_at BIGINT NOT NULL DEFAULT 0;
ALTER TABLE installations ADD COLUMN installed_by TEXT NOT NULL DEFAULT '';
ALTER TABLE installations ADD COLUMN running TEXT NOT NULL DEFAULT '';
UPDATE installations SET installed_at = updated_at, installed_by = task_id WHERE state = 'installed';

-- +goose Down
ALTER TABLE installations DROP COLUMN running;
ALTER TABLE installations DROP COLUMN installed_by;
ALTER TABLE installations DROP COLUMN installed_at;
