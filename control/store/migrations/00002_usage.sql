-- What was used: events, their totals per period, and what could not be written.

-- +goose Up
CREATE TABLE usage_periods (
    customer_id       text NOT NULL REFERENCES customers (id),
    period_id         text NOT NULL CHECK (period_id <> '' AND octet_length(period_id) <= 64),
    -- NULL with limit_version 0: events came before the period was known here.
    starts_at         timestamptz,
    ends_at           timestamptz,
    limit_tokens      bigint CHECK (limit_tokens >= 0),
    limit_version     bigint NOT NULL DEFAULT 0 CHECK (limit_version >= 0),
    requests          bigint NOT NULL DEFAULT 0 CHECK (requests >= 0),
    prompt_tokens     bigint NOT NULL DEFAULT 0 CHECK (prompt_tokens >= 0),
    cached_tokens     bigint NOT NULL DEFAULT 0 CHECK (cached_tokens >= 0),
    completion_tokens bigint NOT NULL DEFAULT 0 CHECK (completion_tokens >= 0),
    reasoning_tokens  bigint NOT NULL DEFAULT 0 CHECK (reasoning_tokens >= 0),
    settled_tokens    bigint NOT NULL DEFAULT 0 CHECK (settled_tokens >= 0),
    unbilled_tokens   bigint NOT NULL DEFAULT 0 CHECK (unbilled_tokens >= 0),
    created_at        timestamptz NOT NULL DEFAULT now(),
    updated_at        timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (customer_id, period_id),
    CHECK ((starts_at IS NULL) = (ends_at IS NULL)),
    CHECK ((starts_at IS NULL) = (limit_tokens IS NULL)),
    CHECK ((starts_at IS NULL) = (limit_version = 0)),
    CHECK (starts_at < ends_at)
);
CREATE INDEX usage_periods_by_end ON usage_periods (customer_id, ends_at DESC);

-- One row per forwarded request. Only customer_id is a foreign key: an event of a
-- box or token that is gone must still be billed.
CREATE TABLE usage_events (
    replica             text NOT NULL CHECK (replica <> '' AND octet_length(replica) <= 128),
    seq                 bigint NOT NULL CHECK (seq > 0),
    admitted_at         timestamptz NOT NULL,
    period_id           text NOT NULL CHECK (period_id <> ''),
    request_id          text NOT NULL CHECK (request_id <> ''),
    upstream_request_id text NOT NULL,
    customer_id         text NOT NULL REFERENCES customers (id),
    box_id              text NOT NULL CHECK (box_id <> ''),
    token_id            text NOT NULL CHECK (token_id <> ''),
    tier                text NOT NULL,
    model_asked         text NOT NULL,
    model_served        text NOT NULL,
    face                text NOT NULL CHECK (face IN ('openai', 'anthropic')),
    upstream            text NOT NULL,
    prompt_tokens       bigint NOT NULL CHECK (prompt_tokens >= 0),
    cached_tokens       bigint NOT NULL CHECK (cached_tokens >= 0),
    completion_tokens   bigint NOT NULL CHECK (completion_tokens >= 0),
    reasoning_tokens    bigint NOT NULL CHECK (reasoning_tokens >= 0),
    settled_tokens      bigint NOT NULL CHECK (settled_tokens >= 0),
    unbilled_tokens     bigint NOT NULL CHECK (unbilled_tokens >= 0),
    reserved_tokens     bigint NOT NULL CHECK (reserved_tokens >= 0),
    basis               text NOT NULL CHECK (basis IN ('upstream', 'estimated', 'recovered')),
    outcome             text NOT NULL CHECK (outcome <> ''),
    status              integer NOT NULL,
    ttfb_us             bigint NOT NULL,
    duration_us         bigint NOT NULL,
    recorded_at         timestamptz NOT NULL DEFAULT now(),
    CHECK (settled_tokens <= reserved_tokens),
    -- The unique key of a partitioned table must contain the partition's column;
    -- admitted_at is fixed with the event's number, so (replica, seq) stays unique.
    PRIMARY KEY (replica, seq, admitted_at)
) PARTITION BY RANGE (admitted_at);
CREATE INDEX usage_events_customer ON usage_events (customer_id, admitted_at DESC);

-- Makes sure that the UTC month of "at" has its partition, and returns its name. Safe
-- to call from many sessions at once. The table is built beside and then attached,
-- because ATTACH lets others go on reading and writing usage_events.
-- +goose StatementBegin
CREATE FUNCTION usage_events_ensure_month(at timestamptz) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    first timestamp := date_trunc('month', at AT TIME ZONE 'UTC');
    part  text := 'usage_events_' || to_char(first, 'YYYY_MM');
BEGIN
    IF EXISTS (SELECT FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
               WHERE inhparent = 'usage_events'::regclass AND relname = part) THEN
        RETURN part;
    END IF;
    -- Asked again by a scan, not with to_regclass: a lock does not refresh its cache.
    PERFORM pg_advisory_xact_lock(hashtext('usage_events_ensure_month'));
    IF EXISTS (SELECT FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
               WHERE inhparent = 'usage_events'::regclass AND relname = part) THEN
        RETURN part;
    END IF;
    EXECUTE format('CREATE TABLE %I (LIKE usage_events INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', part);
    EXECUTE format('ALTER TABLE usage_events ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', part,
        first AT TIME ZONE 'UTC', (first + interval '1 month') AT TIME ZONE 'UTC');
    RETURN part;
END
$$;
-- +goose StatementEnd

-- What came on the usage stream and could not be written. The digest is in the key
-- because stream ids can return after Redis lost its data.
CREATE TABLE dead_letters (
    id             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    stream_id      text NOT NULL,
    batch_index    integer NOT NULL CHECK (batch_index >= -1), -- -1: the whole entry
    payload        bytea NOT NULL,
    payload_digest bytea NOT NULL GENERATED ALWAYS AS (sha256(payload)) STORED,
    reason         text NOT NULL,
    seen_at        timestamptz NOT NULL DEFAULT now(),
    replayed_at    timestamptz,
    UNIQUE (stream_id, batch_index, payload_digest)
);

-- The proxy replicas that are known: a random id, minted with its journal file.
CREATE TABLE replicas (
    id            text PRIMARY KEY CHECK (id <> '' AND octet_length(id) <= 128),
    registered_at timestamptz NOT NULL DEFAULT now(),
    seen_at       timestamptz NOT NULL DEFAULT now(),
    -- All its events up to this number are committed or parked.
    acked_seq     bigint NOT NULL DEFAULT 0 CHECK (acked_seq >= 0),
    lost_at       timestamptz
);

-- +goose Down
DROP TABLE replicas;
DROP TABLE dead_letters;
DROP TABLE usage_events;
DROP FUNCTION usage_events_ensure_month(timestamptz);
DROP TABLE usage_periods;
