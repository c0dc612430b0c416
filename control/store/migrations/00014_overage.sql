-- What is billed of a period goes by what its limit was while the tokens were used.

-- +goose Up
ALTER TABLE usage_periods
    -- The most that its overage_tokens ever were: so many may have been used above the limit.
    ADD COLUMN overage_most bigint NOT NULL DEFAULT 0,
    -- Tokens that were used while the price included them, and that it would not include now.
    ADD COLUMN forgiven_tokens bigint NOT NULL DEFAULT 0 CHECK (forgiven_tokens >= 0),
    -- Tokens that the price pays for, whatever an operator makes of the limit: they are never
    -- billed. NULL: as many as the limit has without overage_tokens.
    ADD COLUMN included_tokens bigint CHECK (included_tokens >= 0),
    -- The most that the limit may be since an operator lowered it; NULL: it did not, or took it back.
    ADD COLUMN ceiling_tokens bigint CHECK (ceiling_tokens >= 0);
UPDATE usage_periods SET overage_tokens = LEAST(overage_tokens, coalesce(limit_tokens, 0)), overage_most = overage_tokens WHERE overage_tokens > 0;
ALTER TABLE usage_periods
    ADD CONSTRAINT usage_periods_included CHECK (overage_tokens <= limit_tokens),
    ADD CONSTRAINT usage_periods_overage_most CHECK (overage_most >= overage_tokens);
DROP INDEX usage_periods_overage;
CREATE INDEX usage_periods_overage ON usage_periods (ends_at, customer_id, period_id) WHERE overage_most > 0;

-- What a million of a report's tokens cost when they were used, in cents.
ALTER TABLE meter_reports ADD COLUMN cents_per_million bigint NOT NULL DEFAULT 300 CHECK (cents_per_million > 0);
ALTER TABLE meter_reports ALTER COLUMN cents_per_million DROP DEFAULT;

-- +goose Down
ALTER TABLE meter_reports DROP COLUMN cents_per_million;
DROP INDEX usage_periods_overage;
CREATE INDEX usage_periods_overage ON usage_periods (ends_at, customer_id, period_id) WHERE overage_tokens > 0;
ALTER TABLE usage_periods
    DROP CONSTRAINT usage_periods_included,
    DROP CONSTRAINT usage_periods_overage_most,
    DROP COLUMN ceiling_tokens,
    DROP COLUMN included_tokens,
    DROP COLUMN forgiven_tokens,
    DROP COLUMN overage_most;
