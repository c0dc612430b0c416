-- A customer who paid twice.

-- +goose Up
-- Of two live subscriptions of a customer one counts. The other one names it, entitles to
-- nothing, and is to be cancelled at Stripe. That one names the other may be written first.
ALTER TABLE subscriptions
    ADD COLUMN replaced_by text CHECK (replaced_by <> id),
    ADD CONSTRAINT subscriptions_replaced FOREIGN KEY (replaced_by, customer_id) REFERENCES subscriptions (id, customer_id)
        DEFERRABLE INITIALLY DEFERRED;
DROP INDEX subscriptions_live;
CREATE UNIQUE INDEX subscriptions_live ON subscriptions (customer_id)
    WHERE status IN ('trialing', 'active', 'past_due', 'unpaid', 'paused') AND replaced_by IS NULL;

-- +goose Down
-- They do not count, and Stripe was told to end them.
UPDATE subscriptions SET status = 'canceled' WHERE replaced_by IS NOT NULL;
DROP INDEX subscriptions_live;
ALTER TABLE subscriptions DROP COLUMN replaced_by;
CREATE UNIQUE INDEX subscriptions_live ON subscriptions (customer_id)
    WHERE status IN ('trialing', 'active', 'past_due', 'unpaid', 'paused');
