-- What billing by Stripe needs besides its own tables.

-- +goose Up
-- A payment is missing: that is why the customer is suspended, and its recovery brings
-- it back. Who was suspended by an operator is not brought back by paying.
ALTER TABLE customers
    ADD COLUMN payment_hold boolean NOT NULL DEFAULT false,
    ADD CONSTRAINT customers_payment_hold CHECK (NOT payment_hold OR status = 'suspended');

-- Subscriptions whose period has ended, as far as is known here.
CREATE INDEX subscriptions_overdue ON subscriptions (period_end, id)
    WHERE status IN ('trialing', 'active', 'past_due', 'unpaid', 'paused');

-- Periods that go on. It holds no column that usage changes, so that counting stays cheap.
CREATE INDEX usage_periods_ending ON usage_periods (ends_at, customer_id, period_id) WHERE ends_at IS NOT NULL;

-- Of a period's limit, the tokens that are paid for one by one, on top of the price.
ALTER TABLE usage_periods ADD COLUMN overage_tokens bigint NOT NULL DEFAULT 0 CHECK (overage_tokens >= 0);
CREATE INDEX usage_periods_overage ON usage_periods (ends_at, customer_id, period_id) WHERE overage_tokens > 0;

-- +goose Down
DROP INDEX usage_periods_overage;
ALTER TABLE usage_periods DROP COLUMN overage_tokens;
DROP INDEX usage_periods_ending;
DROP INDEX subscriptions_overdue;
ALTER TABLE customers DROP COLUMN payment_hold;
