-- Conversations that have expired and that may still be paid for are looked for every few seconds.

-- +goose Up
CREATE INDEX onboarding_sessions_late ON onboarding_sessions (id) WHERE state = 'abandoned' AND customer_id IS NOT NULL;

-- +goose Down
DROP INDEX onboarding_sessions_late;
