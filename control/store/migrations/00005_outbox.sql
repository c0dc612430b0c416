-- Changes that cannot be read leave the outbox's scan; old ones can be removed.

-- +goose Up
ALTER TABLE config_changes
    ADD COLUMN failed_at timestamptz,
    ADD COLUMN error text CHECK (error <> ''),
    ADD CHECK ((failed_at IS NULL) = (error IS NULL)),
    ADD CHECK (published_at IS NULL OR failed_at IS NULL);
DROP INDEX config_changes_pending;
CREATE INDEX config_changes_pending ON config_changes (id) WHERE published_at IS NULL AND failed_at IS NULL;
CREATE INDEX config_changes_failed ON config_changes (id) WHERE failed_at IS NOT NULL;
CREATE INDEX config_changes_published ON config_changes (published_at) WHERE published_at IS NOT NULL;
CREATE INDEX config_changes_feed_seq ON config_changes (feed_seq) WHERE feed_seq IS NOT NULL;

-- +goose Down
DROP INDEX config_changes_feed_seq;
DROP INDEX config_changes_published;
DROP INDEX config_changes_failed;
DROP INDEX config_changes_pending;
ALTER TABLE config_changes DROP COLUMN error, DROP COLUMN failed_at;
CREATE INDEX config_changes_pending ON config_changes (id) WHERE published_at IS NULL;
