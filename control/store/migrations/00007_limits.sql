-- How the quota's records in Redis are made from what is here: see package limits.

-- +goose Up
-- Epochs of the quota. In each of them every record in Redis is made anew, once.
CREATE TABLE quota_epochs (
    number    bigint PRIMARY KEY CHECK (number > 0),
    reason    text NOT NULL CHECK (reason <> ''),
    taken_at  timestamptz NOT NULL DEFAULT now(),
    based_at  timestamptz, -- its bases are fixed: records can be made
    opened_at timestamptz
);

-- Which events the records of an epoch contain. Of a member, a replica on the register,
-- those up to base; it settles the others itself. Of any other replica those in counted;
-- one that came later is in no record that was made before. A replica without a row had no
-- event when the bases were fixed, or none for long.
CREATE TABLE quota_bases (
    epoch   bigint NOT NULL REFERENCES quota_epochs (number) ON DELETE CASCADE,
    replica text NOT NULL,
    member  boolean NOT NULL,
    base    bigint NOT NULL CHECK (base >= 0),
    counted int8multirange NOT NULL,
    PRIMARY KEY (epoch, replica)
);

-- In which epoch each record was made: written before the record is. One that is made
-- and is not there any more was lost. Customer and period may be unknown here.
CREATE TABLE quota_records (
    customer_id text NOT NULL,
    period_id   text NOT NULL,
    epoch       bigint NOT NULL,
    made        boolean NOT NULL, -- known to be in Redis, not only on its way
    made_at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (customer_id, period_id)
);
CREATE INDEX quota_records_unmade ON quota_records (epoch) WHERE NOT made;

-- Why the records have to be made anew although Redis lost nothing: written by whoever
-- changes what they are made of, in the same transaction.
CREATE TABLE quota_repairs (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    reason       text NOT NULL CHECK (reason <> ''),
    requested_at timestamptz NOT NULL DEFAULT now()
);

-- The register: an epoch is not opened before every replica on it has declared what it
-- leases, or is lost.
ALTER TABLE replicas
    ADD COLUMN registered_at timestamptz, -- NULL: not on the register
    ADD COLUMN retiring boolean NOT NULL DEFAULT false,
    ADD COLUMN retired_at timestamptz,
    -- Of a lost one: since when it cannot know of an epoch that has it, from when on
    -- nothing that it leased is usable, and when its leases were freed.
    ADD COLUMN shut_at timestamptz,
    ADD COLUMN free_at timestamptz,
    ADD COLUMN released_at timestamptz;
CREATE INDEX replicas_registered ON replicas (id) WHERE registered_at IS NOT NULL;
CREATE INDEX replicas_seen ON replicas (last_seen_at);

-- The last sign of life of each replica, and when it was first noticed here. Not in
-- replicas: rows of that table are locked by whoever records events.
CREATE TABLE replica_beats (
    replica text PRIMARY KEY,
    life    bigint NOT NULL,
    beat_at timestamptz NOT NULL, -- by the replica's clock
    seen_at timestamptz NOT NULL DEFAULT now()
);

-- What was freed when a replica was given up.
CREATE TABLE quota_releases (
    replica        text NOT NULL,
    customer_id    text NOT NULL,
    period_id      text NOT NULL,
    settled_tokens bigint NOT NULL CHECK (settled_tokens >= 0), -- used, known here, and not in Redis before
    freed_tokens   bigint NOT NULL CHECK (freed_tokens >= 0),
    released_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (replica, customer_id, period_id)
);

-- When a limit was changed, so that records whose making it overtook learn of it.
ALTER TABLE usage_periods ADD COLUMN limit_set_at timestamptz;
CREATE INDEX usage_periods_limit_set ON usage_periods (limit_set_at) WHERE limit_set_at IS NOT NULL;
CREATE INDEX usage_periods_end ON usage_periods (ends_at, customer_id, period_id);

-- +goose Down
DROP INDEX usage_periods_end;
DROP INDEX usage_periods_limit_set;
ALTER TABLE usage_periods DROP COLUMN limit_set_at;
DROP TABLE quota_releases;
DROP TABLE replica_beats;
DROP INDEX replicas_seen;
DROP INDEX replicas_registered;
ALTER TABLE replicas DROP COLUMN released_at, DROP COLUMN free_at, DROP COLUMN shut_at, DROP COLUMN retired_at,
    DROP COLUMN retiring, DROP COLUMN registered_at;
DROP TABLE quota_repairs;
DROP TABLE quota_records;
DROP TABLE quota_bases;
DROP TABLE quota_epochs;
