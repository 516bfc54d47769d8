-- +goose Up
-- Files that were uploaded for versions; their content is kept elsewhere, by its SHA-256.
CREATE TABLE artifacts (
    sha256     TEXT PRIMARY KEY,
    size       BIGINT NOT NULL,
    name       TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    last_used  BIGINT NOT NULL
);

-- Which versions need them. It keeps an artifact from being deleted.
CREATE TABLE version_artifacts (
    version_id TEXT NOT NULL REFERENCES versions (id) ON DELETE CASCADE,
    sha256     TEXT NOT NULL REFERENCES artifacts (sha256),
    PRIMARY KEY (version_id, sha256)
);
CREATE INDEX version_artifacts_sha256 ON version_artifacts (sha256);

-- +goose Down
DROP TABLE version_artifacts;
DROP TABLE artifacts;
