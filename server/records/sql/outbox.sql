-- What happened to orders, in the transaction in which it happened (records/outbox.py).

-- name: note_taken
-- $1 show, $2 payloads: {pool, epoch, seq_first, seq_last}.
INSERT INTO outbox (show_id, topic, payload)
SELECT $1, 'taken', payload FROM unnest($2::jsonb[]) AS payload

-- name: note_moves
-- $1 show, $2 payload: {status, orders}.
INSERT INTO outbox (show_id, topic, payload)
SELECT $1, 'moved', $2::jsonb
WHERE EXISTS (SELECT FROM webhook_endpoints e WHERE e.show_id = $1 AND e.removed_at IS NULL)

-- name: note_released
-- $1 show, $2 give.
INSERT INTO outbox (show_id, topic, payload)
SELECT $1, 'released', jsonb_build_object('give_id', $2::text)
WHERE EXISTS (SELECT FROM webhook_endpoints e WHERE e.show_id = $1 AND e.removed_at IS NULL)
