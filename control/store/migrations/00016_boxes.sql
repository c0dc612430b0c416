-- What a box shall be, apart from what it is.

-- +goose Up
-- Who decides on a box sets wants and the like, and raises generation in the same statement.
-- The operator of the boxes alone sets state, message and observed_generation.
ALTER TABLE boxes DROP CONSTRAINT boxes_state_check;
ALTER TABLE boxes
    ADD CONSTRAINT boxes_state_check CHECK (state IN
        ('pending', 'provisioning', 'active', 'updating', 'suspended', 'unhealthy', 'failed', 'destroying', 'destroyed')),
    ADD COLUMN wants text NOT NULL DEFAULT 'run' CHECK (wants IN ('run', 'suspend', 'destroy')),
    ADD COLUMN generation bigint NOT NULL DEFAULT 1 CHECK (generation > 0),
    ADD COLUMN observed_generation bigint NOT NULL DEFAULT 0 CHECK (observed_generation >= 0),
    ADD COLUMN message text NOT NULL DEFAULT '' CHECK (char_length(message) <= 1000),
    ADD COLUMN changed_at timestamptz NOT NULL DEFAULT now(), -- state was last another one
    ADD COLUMN settings jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(settings) = 'object'),
    ADD COLUMN telegram_token bytea CHECK (octet_length(telegram_token) > 0), -- sealed
    ADD COLUMN has_telegram_token boolean NOT NULL GENERATED ALWAYS AS (telegram_token IS NOT NULL) STORED,
    ADD COLUMN rotation bigint NOT NULL DEFAULT 0 CHECK (rotation >= 0),
    ADD COLUMN restart bigint NOT NULL DEFAULT 0 CHECK (restart >= 0),
    -- An operator suspended it: no payment wakes it.
    ADD COLUMN held boolean NOT NULL DEFAULT false,
    -- It has the resources of that tier, and not of the customer's.
    ADD COLUMN size text CHECK (size <> '');
-- Until now the state was what was wanted.
UPDATE boxes SET changed_at = updated_at, wants = CASE
    WHEN state = 'suspended' THEN 'suspend' WHEN state IN ('destroying', 'destroyed') THEN 'destroy' ELSE 'run' END;
ALTER TABLE boxes
    ADD CONSTRAINT boxes_observed_check CHECK (observed_generation <= generation),
    ADD CONSTRAINT boxes_held_check CHECK (NOT held OR wants <> 'run'),
    -- Nothing follows.
    ADD CONSTRAINT boxes_destroyed_check CHECK (state NOT IN ('destroying', 'destroyed') OR wants = 'destroy'),
    ADD CONSTRAINT boxes_forgotten_check CHECK (wants <> 'destroy' OR telegram_token IS NULL);
CREATE INDEX boxes_unfinished ON boxes (created_at, id) WHERE state <> 'destroyed';
CREATE INDEX boxes_state_age ON boxes (state, created_at, id);

-- What the operator did to a box for its newest generation that was reported.
CREATE TABLE box_steps (
    box_id      text NOT NULL,
    customer_id text NOT NULL,
    generation  bigint NOT NULL CHECK (generation > 0),
    name        text NOT NULL CHECK (name ~ '^[a-z][a-z0-9_-]{0,39}$'),
    started_at  timestamptz NOT NULL,
    finished_at timestamptz,
    error       text CHECK (error <> '' AND char_length(error) <= 1000),
    PRIMARY KEY (box_id, generation, name),
    FOREIGN KEY (box_id, customer_id) REFERENCES boxes (id, customer_id)
);
CREATE INDEX box_steps_customer ON box_steps (customer_id);
ALTER TABLE box_steps ENABLE ROW LEVEL SECURITY;
CREATE POLICY of_customer ON box_steps TO openclaw_customer USING (customer_id = current_setting('openclaw.customer_id', true));
GRANT SELECT ON box_steps TO openclaw_customer;

-- Without the secret.
REVOKE SELECT ON boxes FROM openclaw_customer;
GRANT SELECT (id, customer_id, namespace, state, created_at, updated_at, subscription_id, wants, generation, observed_generation,
    message, changed_at, settings, has_telegram_token, rotation, restart, held, size) ON boxes TO openclaw_customer;

-- When a token is revoked, of one that has been replaced.
ALTER TABLE proxy_tokens ADD COLUMN ends_at timestamptz;

-- +goose Down
ALTER TABLE proxy_tokens DROP COLUMN ends_at;
DROP TABLE box_steps;
DROP INDEX boxes_state_age;
DROP INDEX boxes_unfinished;
-- The older release takes the state for what is wanted.
ALTER TABLE boxes DROP CONSTRAINT boxes_destroyed_check;
UPDATE boxes SET state = CASE
    WHEN wants = 'destroy' THEN 'destroying' WHEN wants = 'suspend' THEN 'suspended'
    WHEN state = 'failed' THEN 'unhealthy' ELSE 'provisioning' END
WHERE state <> 'destroyed' AND (wants <> 'run' OR state IN ('failed', 'suspended'));
-- Privileges on columns go with the whole table's.
REVOKE SELECT ON boxes FROM openclaw_customer;
GRANT SELECT ON boxes TO openclaw_customer;
ALTER TABLE boxes
    DROP CONSTRAINT boxes_state_check,
    DROP CONSTRAINT boxes_forgotten_check,
    DROP CONSTRAINT boxes_held_check,
    DROP CONSTRAINT boxes_observed_check,
    DROP COLUMN size,
    DROP COLUMN held,
    DROP COLUMN restart,
    DROP COLUMN rotation,
    DROP COLUMN has_telegram_token,
    DROP COLUMN telegram_token,
    DROP COLUMN settings,
    DROP COLUMN changed_at,
    DROP COLUMN message,
    DROP COLUMN observed_generation,
    DROP COLUMN generation,
    DROP COLUMN wants;
ALTER TABLE boxes ADD CONSTRAINT boxes_state_check CHECK (state IN
    ('pending', 'provisioning', 'active', 'updating', 'suspended', 'unhealthy', 'destroying', 'destroyed'));
