-- Operators look customers up by the beginning of an e-mail address or a name, in any case.

-- +goose Up
-- By bytes, so that what begins alike lies together whatever the database's collation is.
CREATE INDEX customers_email_prefix ON customers (lower(email) text_pattern_ops) WHERE email IS NOT NULL;
CREATE INDEX customers_name_prefix ON customers (lower(name) text_pattern_ops);

-- +goose Down
DROP INDEX customers_name_prefix;
DROP INDEX customers_email_prefix;
