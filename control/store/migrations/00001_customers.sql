-- Customers, their boxes and their proxy tokens.

-- +goose Up
CREATE TABLE customers (
    -- A DNS label that fits into "customer-<id>" (63 characters).
    id         text PRIMARY KEY CHECK (id ~ '^[a-z0-9]([a-z0-9-]{0,52}[a-z0-9])?$'),
    name       text NOT NULL CHECK (name <> ''),
    email      text CHECK (email <> ''),
    tier       text NOT NULL CHECK (tier <> ''),
    status     text NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'suspended', 'cancelled')),
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX customers_email ON customers (lower(email)) WHERE email IS NOT NULL AND status <> 'cancelled';

CREATE TABLE boxes (
    id          text PRIMARY KEY CHECK (id ~ '^[a-z0-9]([a-z0-9-]{0,52}[a-z0-9])?$'),
    customer_id text NOT NULL REFERENCES customers (id),
    -- The namespace is named here, once, and nowhere derived: two boxes can never share one.
    namespace   text NOT NULL UNIQUE CHECK (namespace ~ '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$'),
    state       text NOT NULL DEFAULT 'pending' CHECK (state IN
        ('pending', 'provisioning', 'active', 'updating', 'suspended', 'unhealthy', 'destroying', 'destroyed')),
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now(),
    UNIQUE (id, customer_id)
);
CREATE INDEX boxes_customer ON boxes (customer_id);

CREATE TABLE proxy_tokens (
    id          text PRIMARY KEY CHECK (id ~ '^[a-z0-9]([a-z0-9-]{0,52}[a-z0-9])?$'),
    customer_id text NOT NULL REFERENCES customers (id),
    box_id      text NOT NULL,
    digest      bytea NOT NULL UNIQUE CHECK (octet_length(digest) = 32),
    hint        text NOT NULL CHECK (char_length(hint) = 4),
    version     bigint NOT NULL DEFAULT 1 CHECK (version > 0),
    status      text NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'suspended', 'revoked')),
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now(),
    revoked_at  timestamptz,
    -- A token can never pair one customer with another's box.
    FOREIGN KEY (box_id, customer_id) REFERENCES boxes (id, customer_id),
    CHECK ((status = 'revoked') = (revoked_at IS NOT NULL))
);
CREATE INDEX proxy_tokens_customer ON proxy_tokens (customer_id);

-- +goose Down
DROP TABLE proxy_tokens;
DROP TABLE boxes;
DROP TABLE customers;
