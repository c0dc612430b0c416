-- The tier table as it was put into effect, for all processes.

-- +goose Up
CREATE TABLE tier_tables (
    version       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    content       text NOT NULL CHECK (content <> ''), -- the file as it was given
    created_at    timestamptz NOT NULL DEFAULT now(),
    rolled_out_at timestamptz -- since then all grants are of it
);

-- Which table a customer's grants were last rolled out of; 0 for none yet. So a roll-out that
-- one customer holds up has the others done once.
ALTER TABLE customers ADD COLUMN grants_tiers bigint NOT NULL DEFAULT 0;

-- +goose Down
ALTER TABLE customers DROP COLUMN grants_tiers;
DROP TABLE tier_tables;
