-- Which operator of the boxes leads.

-- +goose Up
-- Each one that begins to lead takes the next number. What one with an earlier number still
-- writes about boxes is refused.
CREATE SEQUENCE box_operators;

-- +goose Down
DROP SEQUENCE box_operators;
