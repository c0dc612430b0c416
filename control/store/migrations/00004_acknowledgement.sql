-- What replicas may forget, and what became of dead letters.

-- +goose Up
-- The numbers of a replica's events that are rows or parked, with 0 so that the set is
-- never empty; and where the run that begins at 0 ends. What is behind it may be
-- forgotten by the replica, what is ahead of it waits for a gap to be filled.
ALTER TABLE replicas DROP COLUMN acked_seq;
ALTER TABLE replicas ADD COLUMN accounted int8multirange NOT NULL DEFAULT '{[0,0]}' CHECK (accounted @> 0::bigint);
ALTER TABLE replicas ADD COLUMN acked_seq bigint NOT NULL
    GENERATED ALWAYS AS (lower(int8multirange(int8range(0, NULL)) - accounted) - 1) STORED;
INSERT INTO replicas (id, registered_at, seen_at, accounted)
SELECT replica, min(recorded_at), max(recorded_at), '{[0,0]}'::int8multirange + range_agg(int8range(seq, seq, '[]'))
FROM usage_events WHERE seq < 9223372036854775807 GROUP BY replica
ON CONFLICT (id) DO UPDATE SET accounted = excluded.accounted;

ALTER TABLE replicas
    ADD COLUMN status text NOT NULL DEFAULT 'live' CHECK (status IN ('live', 'lost')),
    ADD COLUMN lost_reason text CHECK (lost_reason <> ''),
    ADD CHECK ((status = 'lost') = (lost_at IS NOT NULL)),
    ADD CHECK ((status = 'lost') = (lost_reason IS NOT NULL));
ALTER TABLE replicas RENAME COLUMN registered_at TO first_seen_at;
ALTER TABLE replicas RENAME COLUMN seen_at TO last_seen_at;
CREATE INDEX replicas_live ON replicas (last_seen_at) WHERE status = 'live';

-- The number of the parked event, where it can be read: it is then accounted for.
ALTER TABLE dead_letters
    ADD COLUMN replica text CHECK (replica <> '' AND octet_length(replica) <= 128),
    ADD COLUMN seq bigint CHECK (seq > 0),
    ADD COLUMN dropped_at timestamptz,
    ADD CHECK ((replica IS NULL) = (seq IS NULL)),
    ADD CHECK (replayed_at IS NULL OR dropped_at IS NULL);
-- An event that is sent again, under another stream id, is not parked again.
CREATE UNIQUE INDEX dead_letters_event ON dead_letters (replica, seq, payload_digest) WHERE replica IS NOT NULL;
CREATE INDEX dead_letters_waiting ON dead_letters (id) WHERE replayed_at IS NULL AND dropped_at IS NULL;

-- +goose Down
DROP INDEX dead_letters_waiting;
DROP INDEX dead_letters_event;
ALTER TABLE dead_letters DROP COLUMN dropped_at, DROP COLUMN seq, DROP COLUMN replica;
DROP INDEX replicas_live;
ALTER TABLE replicas RENAME COLUMN last_seen_at TO seen_at;
ALTER TABLE replicas RENAME COLUMN first_seen_at TO registered_at;
ALTER TABLE replicas DROP COLUMN lost_reason, DROP COLUMN status, DROP COLUMN acked_seq, DROP COLUMN accounted;
ALTER TABLE replicas ADD COLUMN acked_seq bigint NOT NULL DEFAULT 0 CHECK (acked_seq >= 0);
