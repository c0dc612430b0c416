-- A Telegram bot is of one box: two gateways would take each other's messages.

-- +goose Up
-- A digest of the bot's token under the pepper of tokens, by which it is recognised; of nothing else can
-- it be told. Tokens that are there already get theirs when the operator looks at their boxes. A box that
-- has none any more, by whatever release, stands in nobody's way.
ALTER TABLE boxes ADD COLUMN telegram_digest bytea CHECK (octet_length(telegram_digest) = 32);
CREATE UNIQUE INDEX boxes_telegram_bot ON boxes (telegram_digest) WHERE telegram_token IS NOT NULL AND telegram_digest IS NOT NULL;

-- +goose Down
ALTER TABLE boxes DROP COLUMN telegram_digest;
