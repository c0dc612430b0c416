-- The tier table as it was put into effect, for all processes.

-- +goose Up
CREATE TABLE tier_tables (
    version       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    content       text NOT NULL CHECK (content <> ''), -- the file as it was given
    created_at    timestamptz NOT NULL DEFAULT now(),
    rolled_out_at timestamptz -- since then all grants are of it
);

-- +goose Down
DROP TABLE tier_tables;
