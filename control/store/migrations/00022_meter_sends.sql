-- Stripe tells the identifiers of reports apart for 24 hours at least. Whether it has one that was sent longer
-- ago, and of which it never answered, only its sum of the minute says that the report was for.

-- +goose Up
ALTER TABLE meter_reports
    -- When it was first sent, unless Stripe is known not to have it; by the clock of who sent it.
    ADD COLUMN sent_at timestamptz,
    -- When it happened, as Stripe was told: the same each time.
    ADD COLUMN event_at timestamptz,
    ADD CONSTRAINT meter_reports_sent CHECK (sent_at IS NULL OR event_at IS NOT NULL);
-- Those that wait count as never sent, as they did until now. What Stripe took is about where it was.
UPDATE meter_reports m SET event_at = least(reported_at, p.ends_at - interval '1 second')
FROM usage_periods p WHERE reported_at IS NOT NULL AND p.customer_id = m.customer_id AND p.period_id = m.period_id;

-- +goose Down
ALTER TABLE meter_reports DROP COLUMN sent_at, DROP COLUMN event_at;
