-- Who may sign in, what was bought, what Stripe said, and what was mailed; and which rows
-- a query for one customer can see at all.

-- +goose Up
-- 'pending': signed up, nothing paid yet. The tier is then only what was asked for: a
-- grant is active with an active customer only.
ALTER TABLE customers DROP CONSTRAINT customers_status_check;
ALTER TABLE customers
    ADD CONSTRAINT customers_status_check CHECK (status IN ('pending', 'active', 'suspended', 'cancelled')),
    ADD COLUMN language text NOT NULL DEFAULT 'en' CHECK (language IN ('en', 'pt-BR')),
    ADD COLUMN stripe_customer_id text UNIQUE CHECK (stripe_customer_id <> ''),
    ADD COLUMN deleted_at timestamptz,
    -- What is deleted cannot be served and names nobody.
    ADD CONSTRAINT customers_deleted_check CHECK (deleted_at IS NULL OR status = 'cancelled' AND email IS NULL);
CREATE INDEX customers_age ON customers (created_at, id);

-- How a customer signs in. Only passwords have a secret here; whoever comes from another
-- provider is known by the subject that it vouches for.
CREATE TABLE identities (
    id          text PRIMARY KEY CHECK (id <> ''),
    customer_id text NOT NULL REFERENCES customers (id),
    provider    text NOT NULL CHECK (provider ~ '^[a-z][a-z0-9-]{0,31}$'),
    subject     text NOT NULL CHECK (subject <> '' AND octet_length(subject) <= 320),
    secret_hash text CHECK (secret_hash <> ''),
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now(),
    verified_at timestamptz, -- the e-mail address was shown to be the customer's
    UNIQUE (provider, subject),
    CHECK ((provider = 'password') = (secret_hash IS NOT NULL)),
    -- The subject of a password is an e-mail address; others compare byte by byte.
    CHECK (provider <> 'password' OR subject = lower(subject))
);
CREATE INDEX identities_customer ON identities (customer_id);

CREATE TABLE operators (
    id            text PRIMARY KEY CHECK (id <> ''),
    email         text NOT NULL UNIQUE CHECK (email <> '' AND octet_length(email) <= 320 AND email = lower(email)),
    role          text NOT NULL CHECK (role IN ('operator', 'admin', 'support')),
    password_hash text NOT NULL CHECK (password_hash <> ''),
    created_at    timestamptz NOT NULL DEFAULT now(),
    updated_at    timestamptz NOT NULL DEFAULT now(),
    disabled_at   timestamptz
);

-- A sign-in: the family of refresh tokens that follow from it. Whatever changes one of
-- the tokens has locked its row here.
CREATE TABLE sessions (
    id             text PRIMARY KEY CHECK (id <> ''),
    customer_id    text REFERENCES customers (id),
    operator_id    text REFERENCES operators (id),
    created_at     timestamptz NOT NULL DEFAULT now(),
    expires_at     timestamptz NOT NULL, -- of its newest token
    revoked_at     timestamptz,
    revoked_reason text CHECK (revoked_reason <> ''),
    CHECK (num_nonnulls(customer_id, operator_id) = 1),
    CHECK ((revoked_at IS NULL) = (revoked_reason IS NULL)),
    CHECK (created_at < expires_at)
);
CREATE INDEX sessions_customer ON sessions (customer_id) WHERE revoked_at IS NULL;
CREATE INDEX sessions_operator ON sessions (operator_id) WHERE revoked_at IS NULL;
CREATE INDEX sessions_expiry ON sessions (expires_at);

CREATE TABLE refresh_tokens (
    digest     bytea PRIMARY KEY CHECK (octet_length(digest) = 32),
    session_id text NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    used_at    timestamptz,
    CHECK (created_at < expires_at)
);
CREATE INDEX refresh_tokens_session ON refresh_tokens (session_id);
CREATE INDEX refresh_tokens_expiry ON refresh_tokens (expires_at);
-- Each token has at most one successor.
CREATE UNIQUE INDEX refresh_tokens_unused ON refresh_tokens (session_id) WHERE used_at IS NULL;

CREATE TABLE api_keys (
    id           text PRIMARY KEY CHECK (id <> ''),
    customer_id  text NOT NULL REFERENCES customers (id),
    digest       bytea NOT NULL UNIQUE CHECK (octet_length(digest) = 32),
    hint         text NOT NULL CHECK (char_length(hint) = 4),
    name         text NOT NULL CHECK (name <> '' AND char_length(name) <= 100),
    created_at   timestamptz NOT NULL DEFAULT now(),
    last_used_at timestamptz,
    revoked_at   timestamptz
);
CREATE INDEX api_keys_customer ON api_keys (customer_id, created_at, id);

-- Requests that must have their effect once. status is the answer's; until it is there
-- the request with that attempt is in hand.
CREATE TABLE idempotency_keys (
    customer_id    text REFERENCES customers (id),
    operator_id    text REFERENCES operators (id),
    who            text NOT NULL GENERATED ALWAYS AS (coalesce('c:' || customer_id, 'o:' || operator_id)) STORED,
    key            text NOT NULL CHECK (key <> '' AND octet_length(key) <= 255),
    request_digest bytea NOT NULL CHECK (octet_length(request_digest) = 32),
    attempt        bigint NOT NULL DEFAULT 1 CHECK (attempt > 0),
    leased_until   timestamptz NOT NULL, -- then whoever had it in hand is taken for dead
    status         integer CHECK (status BETWEEN 100 AND 599),
    body           bytea,
    created_at     timestamptz NOT NULL DEFAULT now(),
    expires_at     timestamptz NOT NULL,
    PRIMARY KEY (who, key),
    CHECK (num_nonnulls(customer_id, operator_id) = 1),
    CHECK ((status IS NULL) = (body IS NULL))
);
CREATE INDEX idempotency_keys_expiry ON idempotency_keys (expires_at);

-- What Stripe says of a subscription, and what only we know of it: the tier that follows,
-- and whether more than the limit may be used and paid for.
CREATE TABLE subscriptions (
    id                   text PRIMARY KEY CHECK (id <> ''), -- Stripe's
    customer_id          text NOT NULL REFERENCES customers (id),
    status               text NOT NULL CHECK (status IN ('incomplete', 'incomplete_expired', 'trialing', 'active',
        'past_due', 'canceled', 'unpaid', 'paused')),
    tier                 text NOT NULL CHECK (tier <> ''),
    period_start         timestamptz NOT NULL,
    period_end           timestamptz NOT NULL,
    cancel_at_period_end boolean NOT NULL DEFAULT false,
    failed_payments      integer NOT NULL DEFAULT 0 CHECK (failed_payments >= 0), -- the most attempts of any invoice that is open
    read_at              timestamptz NOT NULL, -- Stripe was asked then
    pending_tier         text CHECK (pending_tier <> ''),
    pending_from         timestamptz,
    overage_cap_cents    bigint CHECK (overage_cap_cents > 0), -- per period; NULL: no overage
    created_at           timestamptz NOT NULL DEFAULT now(),
    updated_at           timestamptz NOT NULL DEFAULT now(),
    UNIQUE (id, customer_id),
    CHECK (period_start < period_end),
    CHECK ((pending_tier IS NULL) = (pending_from IS NULL)),
    CHECK (pending_tier <> tier)
);
CREATE UNIQUE INDEX subscriptions_live ON subscriptions (customer_id)
    WHERE status IN ('trialing', 'active', 'past_due', 'unpaid', 'paused');
CREATE INDEX subscriptions_customer ON subscriptions (customer_id, created_at DESC);

ALTER TABLE boxes
    ADD COLUMN subscription_id text,
    -- A box can never be paid by another customer's subscription.
    ADD CONSTRAINT boxes_subscription FOREIGN KEY (subscription_id, customer_id) REFERENCES subscriptions (id, customer_id);
CREATE INDEX boxes_by_subscription ON boxes (subscription_id) WHERE subscription_id IS NOT NULL;
CREATE INDEX boxes_age ON boxes (created_at, id);
CREATE INDEX proxy_tokens_age ON proxy_tokens (created_at, id);

-- The inbox. json and not jsonb: what Stripe sent is kept as it came.
CREATE TABLE stripe_events (
    id              text PRIMARY KEY CHECK (id <> ''),
    type            text NOT NULL CHECK (type <> ''),
    api_version     text NOT NULL,
    created_at      timestamptz NOT NULL, -- by Stripe's clock
    payload         json NOT NULL,
    received_at     timestamptz NOT NULL DEFAULT now(),
    processed_at    timestamptz,
    attempts        integer NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    next_attempt_at timestamptz NOT NULL DEFAULT now(),
    error           text CHECK (error <> '')
);
CREATE INDEX stripe_events_due ON stripe_events (next_attempt_at, id) WHERE processed_at IS NULL;
CREATE INDEX stripe_events_received ON stripe_events (received_at, id);

-- Each mail once per cause. claimed_at without sent_at: it may or may not have gone out,
-- and is not sent again by itself.
CREATE TABLE mails (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customer_id     text NOT NULL REFERENCES customers (id),
    kind            text NOT NULL CHECK (kind ~ '^[a-z][a-z0-9_]*$'),
    cause           text NOT NULL CHECK (cause <> ''),
    language        text NOT NULL CHECK (language IN ('en', 'pt-BR')),
    params          jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(params) = 'object'),
    created_at      timestamptz NOT NULL DEFAULT now(),
    attempts        integer NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    next_attempt_at timestamptz NOT NULL DEFAULT now(),
    claimed_at      timestamptz,
    sent_at         timestamptz,
    failed_at       timestamptz, -- given up
    error           text CHECK (error <> ''),
    UNIQUE (customer_id, kind, cause),
    CHECK (sent_at IS NULL OR claimed_at IS NOT NULL),
    CHECK (sent_at IS NULL OR failed_at IS NULL),
    CHECK (failed_at IS NULL OR error IS NOT NULL)
);
CREATE INDEX mails_due ON mails (next_attempt_at, id) WHERE sent_at IS NULL AND claimed_at IS NULL AND failed_at IS NULL;

-- Overage as it is reported to Stripe, under our own identifiers: of one period the
-- tokens above the limit from tokens_from on, up to tokens_to.
CREATE TABLE meter_reports (
    id              text PRIMARY KEY CHECK (id <> ''),
    customer_id     text NOT NULL,
    subscription_id text NOT NULL,
    period_id       text NOT NULL,
    tokens_from     bigint NOT NULL CHECK (tokens_from >= 0),
    tokens_to       bigint NOT NULL,
    created_at      timestamptz NOT NULL DEFAULT now(),
    attempts        integer NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    next_attempt_at timestamptz NOT NULL DEFAULT now(),
    reported_at     timestamptz,
    error           text CHECK (error <> ''),
    FOREIGN KEY (subscription_id, customer_id) REFERENCES subscriptions (id, customer_id),
    FOREIGN KEY (customer_id, period_id) REFERENCES usage_periods (customer_id, period_id),
    -- Each begins where one before it ended, and nothing is reported twice.
    UNIQUE (customer_id, period_id, tokens_from),
    UNIQUE (customer_id, period_id, tokens_to),
    CHECK (tokens_from < tokens_to)
);
CREATE INDEX meter_reports_due ON meter_reports (next_attempt_at, id) WHERE reported_at IS NULL;

CREATE INDEX audit_log_customer_id ON audit_log (customer_id, id DESC);

-- Queries for one customer run as this role, which cannot sign in: see Store.ForCustomer.
-- Roles belong to the whole server, so another database may have made it, even just now.
-- +goose StatementBegin
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'openclaw_customer') THEN
        BEGIN
            CREATE ROLE openclaw_customer NOLOGIN NOINHERIT;
        EXCEPTION WHEN duplicate_object OR unique_violation THEN
            NULL;
        END;
    END IF;
    -- From Postgres 16 on, who made a role is a member of it that may not take it on.
    IF NOT pg_has_role(current_user, 'openclaw_customer',
        CASE WHEN current_setting('server_version_num')::int >= 160000 THEN 'SET' ELSE 'MEMBER' END) THEN
        EXECUTE format('GRANT openclaw_customer TO %I', current_user);
    END IF;
    EXECUTE 'GRANT USAGE ON SCHEMA ' || quote_ident(current_schema()) || ' TO openclaw_customer';
END
$$;
-- +goose StatementEnd

-- The owner is not bound by these policies: it works for all customers. NULL, or '' once
-- a transaction has set it, is nobody's id.
-- +goose StatementBegin
DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['customers', 'identities', 'sessions', 'api_keys', 'idempotency_keys', 'subscriptions', 'boxes',
        'proxy_tokens', 'usage_periods', 'usage_events', 'config_changes', 'audit_log', 'mails', 'meter_reports',
        'quota_records', 'quota_releases']
    LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('CREATE POLICY of_customer ON %I TO openclaw_customer USING (%I = current_setting(''openclaw.customer_id'', true))',
            name, CASE name WHEN 'customers' THEN 'id' ELSE 'customer_id' END);
    END LOOP;
END
$$;
-- +goose StatementEnd
GRANT SELECT ON customers, subscriptions, boxes, proxy_tokens, usage_periods, usage_events, audit_log, mails, meter_reports, api_keys
    TO openclaw_customer;
-- Without secrets.
GRANT SELECT (id, customer_id, provider, subject, created_at, updated_at, verified_at) ON identities TO openclaw_customer;
GRANT SELECT (id, customer_id, created_at, expires_at, revoked_at, revoked_reason) ON sessions TO openclaw_customer;
GRANT UPDATE (name, language, updated_at) ON customers TO openclaw_customer;
GRANT UPDATE (revoked_at, revoked_reason) ON sessions TO openclaw_customer;
GRANT INSERT, UPDATE (name, last_used_at, revoked_at) ON api_keys TO openclaw_customer;
GRANT SELECT, INSERT, UPDATE, DELETE ON idempotency_keys TO openclaw_customer;
GRANT INSERT ON audit_log TO openclaw_customer;

-- +goose Down
-- The role stays: other databases of the server may use it.
-- +goose StatementBegin
DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['customers', 'boxes', 'proxy_tokens', 'usage_periods', 'usage_events', 'config_changes', 'audit_log',
        'quota_records', 'quota_releases']
    LOOP
        EXECUTE format('DROP POLICY of_customer ON %I', name);
        EXECUTE format('ALTER TABLE %I DISABLE ROW LEVEL SECURITY', name);
        EXECUTE format('REVOKE ALL ON %I FROM openclaw_customer', name);
    END LOOP;
    EXECUTE 'REVOKE USAGE ON SCHEMA ' || quote_ident(current_schema()) || ' FROM openclaw_customer';
END
$$;
-- +goose StatementEnd
DROP INDEX audit_log_customer_id;
DROP TABLE meter_reports;
DROP TABLE mails;
DROP TABLE stripe_events;
DROP INDEX proxy_tokens_age;
DROP INDEX boxes_age;
ALTER TABLE boxes DROP COLUMN subscription_id;
DROP TABLE subscriptions;
DROP TABLE idempotency_keys;
DROP TABLE api_keys;
DROP TABLE refresh_tokens;
DROP TABLE sessions;
DROP TABLE operators;
DROP TABLE identities;
DROP INDEX customers_age;
ALTER TABLE customers DROP CONSTRAINT customers_deleted_check, DROP COLUMN deleted_at, DROP COLUMN stripe_customer_id, DROP COLUMN language;
-- Who has not paid has to stay without service.
UPDATE customers SET status = 'suspended' WHERE status = 'pending';
ALTER TABLE customers DROP CONSTRAINT customers_status_check;
ALTER TABLE customers ADD CONSTRAINT customers_status_check CHECK (status IN ('active', 'suspended', 'cancelled'));
