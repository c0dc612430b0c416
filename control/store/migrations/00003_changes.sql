-- The outbox of the configuration feed, and who changed what.

-- +goose Up
CREATE TABLE config_changes (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind         text NOT NULL CHECK (kind IN ('grant', 'limit')),
    customer_id  text NOT NULL REFERENCES customers (id),
    digest       bytea CHECK (octet_length(digest) = 32),
    payload      jsonb NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    published_at timestamptz,
    feed_seq     bigint,
    CHECK ((kind = 'grant') = (digest IS NOT NULL))
);
CREATE INDEX config_changes_pending ON config_changes (id) WHERE published_at IS NULL;

CREATE TABLE audit_log (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at          timestamptz NOT NULL DEFAULT now(),
    actor       text NOT NULL CHECK (actor <> ''),
    action      text NOT NULL CHECK (action <> ''),
    customer_id text REFERENCES customers (id),
    target      text NOT NULL,
    detail      jsonb NOT NULL DEFAULT '{}'
);
CREATE INDEX audit_log_customer ON audit_log (customer_id, at DESC);

-- +goose Down
DROP TABLE audit_log;
DROP TABLE config_changes;
