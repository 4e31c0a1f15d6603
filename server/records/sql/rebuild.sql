-- Rebuilding a show's stock in Redis from the books (records/rebuild.py).

-- name: try_lock
-- $1 show. One reconciliation of a show at a time. Held until the transaction ends, so that the
-- server drops the lock of a process that froze (idle_in_transaction_session_timeout).
SELECT pg_try_advisory_xact_lock(hashtextextended('livesale.reconcile.' || $1, 0))

-- name: keep_lock
SELECT 1

-- name: expected
-- $1 shows. What Redis must have: its epoch and the newest take of every pool that ever got there
-- (a draft that was dropped did not), and the versions of their rows. No row: the show was never
-- projected.
SELECT s.show_id, e.epoch, e.halted_by,
       coalesce(array_agg(p.pool_id) FILTER (WHERE p.pool_id IS NOT NULL), '{}') AS pools,
       coalesce(array_agg(p.taken_seq) FILTER (WHERE p.pool_id IS NOT NULL), '{}') AS seqs,
       coalesce(array_agg(p.version) FILTER (WHERE p.pool_id IS NOT NULL), '{}') AS versions
FROM shows s JOIN stock_epochs e USING (show_id)
LEFT JOIN (
    SELECT p.* FROM pools p JOIN sales ON sale_id = pool_id
    WHERE p.show_id = ANY($1::text[]) AND applied_revision > 0 AND status <> 'draft' AND opens_at_ms > 0
) AS p USING (show_id)
WHERE s.show_id = ANY($1::text[]) AND s.applied_revision > 0
GROUP BY s.show_id, e.epoch, e.halted_by

-- name: projected_shows
SELECT show_id FROM shows WHERE applied_revision > 0 ORDER BY show_id

-- name: bump
-- $1 show, $2 epoch seen in the books, $3 in Redis, $4 why, $5 by whom. Waits for every transaction
-- that holds the epoch; those that come later find another one.
WITH bumped AS (
    UPDATE stock_epochs SET epoch = greatest(epoch, $3::int) + 1, halted_at = NULL, halted_by = ''
    WHERE show_id = $1 AND epoch = $2
    RETURNING epoch
)
INSERT INTO reconciliations (show_id, epoch, reason, by_whom)
SELECT $1, epoch, $4, $5 FROM bumped
RETURNING reconciliation_id, epoch, set_config('synchronous_commit', 'on', true)

-- name: epoch
SELECT epoch FROM stock_epochs WHERE show_id = $1

-- name: pools
-- $1 show. Every pool, also of drafts.
SELECT pool_id, taken_seq,
       initial + restocked - lowered - reserved - sold - dead AS room
FROM pools WHERE show_id = $1

-- name: settled_claims
-- $1 show, $2 buyers, $3 claim ids: those that have a fate.
SELECT t.buyer, t.claim
FROM unnest($2::text[], $3::uuid[]) AS t (buyer, claim)
WHERE EXISTS (SELECT FROM orders o
              WHERE o.show_id = $1 AND o.buyer = t.buyer AND o.claim_id = t.claim)
   OR EXISTS (SELECT FROM incidents i
              WHERE i.show_id = $1 AND i.buyer = t.buyer AND i.claim_id = t.claim)

-- name: settled_acts
-- $1 show, $2 ids of host's acts and payments: those whose take is in the books.
SELECT act_id FROM lowerings JOIN pools USING (pool_id)
WHERE show_id = $1 AND act_id = ANY($2::uuid[])
UNION ALL
SELECT payment_id FROM retakes JOIN pools USING (pool_id)
WHERE show_id = $1 AND payment_id = ANY($2::uuid[])

-- name: dead_letters
-- $1 show. Takes that were parked, whatever became of them since.
SELECT pool_id, epoch, seq, payload, status FROM dead_letters WHERE show_id = $1 AND entry_id = ''

-- name: lost_lowerings
-- $1 show. Lowerings that Redis had decided and then forgot on their way to the books. One of a
-- draft was decided in the books, by a row of the ledger.
SELECT act_id, sale_id, units FROM stock_requests r
WHERE show_id = $1 AND kind = 'lower' AND status = 'done'
  AND NOT EXISTS (SELECT FROM lowerings l WHERE l.pool_id = r.sale_id AND l.act_id = r.act_id)
  AND NOT EXISTS (SELECT FROM stock_ledger s WHERE s.give_id = r.act_id::text)
ORDER BY at

-- name: sales_over
-- $1 show. Sales that are over, with units that should go back to the inventory, or that are still
-- waiting to be closed.
SELECT sale_id, status,
       initial + restocked - lowered - reserved - sold - dead AS room
FROM sales JOIN pools ON pool_id = sale_id
WHERE sales.show_id = $1
  AND (status = 'closing'
       OR status = 'closed' AND initial + restocked - lowered - reserved - sold - dead > 0)
ORDER BY sale_id

-- name: claims
-- $1 show. Every claim with a fate, as server/store/packing.py packs its state.
SELECT buyer, claim_id, status, pool_id, quantity, price, price_version, epoch, seq, order_id,
       coalesce((extract(epoch FROM pay_by) * 1000)::bigint, 0) AS pay_by_ms,
       (extract(epoch FROM confirmed_at) * 1000)::bigint AS at_ms
FROM orders WHERE show_id = $1
UNION ALL
SELECT buyer, claim_id, 'released_by_incident', pool_id, quantity, price, price_version, epoch, seq,
       0, 0, (extract(epoch FROM at) * 1000)::bigint
FROM incidents WHERE show_id = $1 AND buyer <> ''

-- name: buyers
-- $1 show. Units that count against the buyers' limits.
SELECT pool_id, buyer, units FROM pool_buyers JOIN pools USING (pool_id)
WHERE show_id = $1 AND units > 0
ORDER BY pool_id

-- name: gives
-- $1 show. All of them: the pools' counters have them.
SELECT give_id FROM gives WHERE show_id = $1

-- name: acts
-- $1 show. Takes of the host and for late payments, as lua/take.lua and lua/retake.lua remember
-- them. A lowering cut short was asked for more units than it got.
SELECT l.act_id, l.units + coalesce(i.quantity, 0) AS units, l.seq
FROM lowerings l JOIN pools p ON p.pool_id = l.pool_id
     LEFT JOIN incidents i ON (i.pool_id, i.epoch, i.seq) = (l.pool_id, l.epoch, l.seq)
WHERE p.show_id = $1
UNION ALL
SELECT payment_id, quantity, seq FROM retakes JOIN pools USING (pool_id) WHERE show_id = $1

-- name: finish
-- $1 reconciliation, $2 report. Only while its epoch is in force.
UPDATE reconciliations r SET ended_at = now(), report = $2
FROM stock_epochs e
WHERE reconciliation_id = $1 AND e.show_id = r.show_id AND e.epoch = r.epoch
RETURNING reconciliation_id
