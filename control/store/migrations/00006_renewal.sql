-- When a customer's last known period ends, so that who is due can be read in order.

-- +goose Up
ALTER TABLE customers ADD COLUMN renews_at timestamptz;
UPDATE customers c SET renews_at = p.ends_at
FROM (SELECT customer_id, max(ends_at) AS ends_at FROM usage_periods GROUP BY customer_id) p
WHERE p.customer_id = c.id;
CREATE INDEX customers_renewal ON customers (renews_at, id) WHERE status <> 'cancelled';

-- +goose Down
DROP INDEX customers_renewal;
ALTER TABLE customers DROP COLUMN renews_at;
