-- +goose Up
-- When a hub last vouched for the sessions it holds. One row a hub, as one a client would cost more than the heartbeats.
CREATE TABLE nodes (
    id      TEXT PRIMARY KEY,
    seen_at BIGINT NOT NULL
);

-- +goose Down
DROP TABLE nodes;
