-- What is told of a box to its customer, apart from what operators see.

-- +goose Up
-- message and error are for everyone. detail may name images, nodes and addresses of the cluster: it is
-- granted to nobody.
ALTER TABLE boxes ADD COLUMN detail text NOT NULL DEFAULT '' CHECK (char_length(detail) <= 1000);
ALTER TABLE box_steps ADD COLUMN detail text CHECK (detail <> '' AND char_length(detail) <= 1000);
REVOKE SELECT ON box_steps FROM openclaw_customer;
GRANT SELECT (box_id, customer_id, generation, name, started_at, finished_at, error) ON box_steps TO openclaw_customer;
-- Until now one text was for both. What a box waits for is its customer's business.
UPDATE boxes SET detail = message, message = CASE WHEN message = '' THEN '' ELSE 'something of it could not be done yet, and is tried again' END
	WHERE state <> 'pending';
UPDATE box_steps SET detail = error, error = 'it is tried again' WHERE error IS NOT NULL;

-- +goose Down
UPDATE boxes SET message = detail WHERE detail <> '';
UPDATE box_steps SET error = detail WHERE detail IS NOT NULL;
-- Privileges on columns go with the whole table's.
REVOKE SELECT ON box_steps FROM openclaw_customer;
GRANT SELECT ON box_steps TO openclaw_customer;
ALTER TABLE box_steps DROP COLUMN detail;
ALTER TABLE boxes DROP COLUMN detail;
