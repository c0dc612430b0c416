-- Conversations by which somebody becomes a customer.

-- +goose Up
-- What was said and found out is in data, which has no secrets. Whoever saves raises version, and
-- saves only what was read of the version before.
CREATE TABLE onboarding_sessions (
    id            text PRIMARY KEY CHECK (id <> ''),
    key_digest    bytea UNIQUE CHECK (octet_length(key_digest) = 32), -- of the browser's cookie
    telegram_user bigint CHECK (telegram_user > 0),                   -- who writes, on Telegram
    customer_id   text REFERENCES customers (id),
    state         text NOT NULL CHECK (state IN ('new', 'greeting', 'use_case', 'telegram', 'preferences', 'recommending',
        'awaiting_payment', 'provisioning', 'complete', 'failed', 'abandoned')),
    version       bigint NOT NULL DEFAULT 1 CHECK (version > 0),
    data          jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(data) = 'object'),
    bot_token     bytea CHECK (octet_length(bot_token) > 0), -- sealed, until the box has it
    created_at    timestamptz NOT NULL DEFAULT now(),
    updated_at    timestamptz NOT NULL DEFAULT now(),
    expires_at    timestamptz NOT NULL,
    CHECK (created_at < expires_at),
    -- Nothing follows that would need it.
    CHECK (state NOT IN ('complete', 'abandoned') OR bot_token IS NULL)
);
-- Whoever writes on Telegram has one conversation at a time.
CREATE UNIQUE INDEX onboarding_sessions_telegram ON onboarding_sessions (telegram_user) WHERE state NOT IN ('complete', 'abandoned');
CREATE INDEX onboarding_sessions_person ON onboarding_sessions (telegram_user) WHERE telegram_user IS NOT NULL;
CREATE INDEX onboarding_sessions_expiry ON onboarding_sessions (expires_at);
CREATE INDEX onboarding_sessions_waiting ON onboarding_sessions (id)
    WHERE state IN ('awaiting_payment', 'provisioning', 'failed') OR state = 'recommending' AND customer_id IS NOT NULL;
CREATE INDEX onboarding_sessions_customer ON onboarding_sessions (customer_id) WHERE customer_id IS NOT NULL;
ALTER TABLE onboarding_sessions ENABLE ROW LEVEL SECURITY;
CREATE POLICY of_customer ON onboarding_sessions TO openclaw_customer USING (customer_id = current_setting('openclaw.customer_id', true));
-- What was said is its customer's. Without secrets.
GRANT SELECT (id, customer_id, state, data, created_at, expires_at) ON onboarding_sessions TO openclaw_customer;

-- +goose Down
DROP TABLE onboarding_sessions;
