-- Secrets that are mailed, to show that an address is the customer's or to set a new
-- password: only digests, of each sort one per customer, and gone once they were used.

-- +goose Up
CREATE TABLE mail_tokens (
    customer_id text NOT NULL REFERENCES customers (id),
    kind        text NOT NULL CHECK (kind IN ('verify_email', 'reset_password')),
    digest      bytea NOT NULL UNIQUE CHECK (octet_length(digest) = 32),
    address     text NOT NULL CHECK (address <> '' AND address = lower(address)), -- that it was mailed to
    created_at  timestamptz NOT NULL DEFAULT now(),
    expires_at  timestamptz NOT NULL,
    PRIMARY KEY (customer_id, kind),
    CHECK (created_at < expires_at)
);
CREATE INDEX mail_tokens_expiry ON mail_tokens (expires_at);
ALTER TABLE mail_tokens ENABLE ROW LEVEL SECURITY;
CREATE POLICY of_customer ON mail_tokens TO openclaw_customer USING (customer_id = current_setting('openclaw.customer_id', true));

-- +goose Down
DROP TABLE mail_tokens;
