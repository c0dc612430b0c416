-- What customers used by day and model, so that a year of it is read from a few hundred
-- rows, and is there still when the events are dropped; and lists of customers by status.

-- +goose Up
-- Each row adds up the events of a period, a UTC day of admission and a model. Whoever
-- changes rows of a period has locked its row in usage_periods.
CREATE TABLE usage_days (
    customer_id       text NOT NULL REFERENCES customers (id),
    day               date NOT NULL,
    model             text NOT NULL, -- as served
    period_id         text NOT NULL CHECK (period_id <> ''),
    requests          bigint NOT NULL CHECK (requests >= 0),
    prompt_tokens     bigint NOT NULL CHECK (prompt_tokens >= 0),
    cached_tokens     bigint NOT NULL CHECK (cached_tokens >= 0),
    completion_tokens bigint NOT NULL CHECK (completion_tokens >= 0),
    reasoning_tokens  bigint NOT NULL CHECK (reasoning_tokens >= 0),
    settled_tokens    bigint NOT NULL CHECK (settled_tokens >= 0),
    unbilled_tokens   bigint NOT NULL CHECK (unbilled_tokens >= 0),
    PRIMARY KEY (customer_id, day, model, period_id)
);
-- What is written beside this would be in no sum: writers wait. Those of a release that knows no
-- usage_days have to have ended before: what they write afterwards is in no sum, either.
SET LOCAL lock_timeout = '30s';
LOCK TABLE usage_events IN SHARE MODE;
INSERT INTO usage_days
SELECT customer_id, (admitted_at AT TIME ZONE 'UTC')::date, model_served, period_id, count(*), sum(prompt_tokens), sum(cached_tokens),
    sum(completion_tokens), sum(reasoning_tokens), sum(settled_tokens), sum(unbilled_tokens)
FROM usage_events GROUP BY 1, 2, 3, 4;

ALTER TABLE usage_days ENABLE ROW LEVEL SECURITY;
CREATE POLICY of_customer ON usage_days TO openclaw_customer USING (customer_id = current_setting('openclaw.customer_id', true));
GRANT SELECT ON usage_days TO openclaw_customer;

CREATE INDEX customers_status_age ON customers (status, created_at, id);

-- +goose Down
DROP INDEX customers_status_age;
DROP TABLE usage_days;
