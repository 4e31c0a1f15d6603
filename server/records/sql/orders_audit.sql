-- What the audit reads (records/audit.py): all in one REPEATABLE READ snapshot, except `shows`, what
-- is read before Redis is cut (`projected_pools`, `applied_gives`), and `order_statuses` after.

-- name: shows
-- $1 show or NULL for all that ever started a sale.
SELECT show_id FROM shows
WHERE show_id = $1 OR ($1::text IS NULL AND EXISTS (
    SELECT FROM sales WHERE sales.show_id = shows.show_id AND sales.status <> 'draft'))
ORDER BY show_id

-- name: projected_pools
-- $1 show. Pools that Redis must have by now; a draft that was dropped never got there. `untold`:
-- Redis may not have heard of the newest counters.
SELECT sale_id, p.epoch, p.taken_seq, p.version,
       EXISTS (SELECT FROM gives g
               WHERE g.show_id = $1 AND g.pool_id = sale_id AND g.applied_at IS NULL)
       OR EXISTS (SELECT FROM order_moves m
                  WHERE m.show_id = $1 AND m.pool_id = sale_id AND m.told_at IS NULL) AS untold
FROM sales JOIN pools p ON p.pool_id = sale_id
WHERE sales.show_id = $1 AND applied_revision > 0 AND status <> 'draft'
  AND (status <> 'closed' OR EXISTS (SELECT FROM lowerings l WHERE l.pool_id = sale_id))

-- name: applied_gives
-- $1 show. Gives that were seen to be in force in Redis.
SELECT give_id FROM gives WHERE show_id = $1 AND applied_at IS NOT NULL

-- name: order_statuses
-- $1 order ids.
SELECT order_id, status FROM orders WHERE order_id = ANY($1::bigint[])

-- name: epoch
-- $1 show.
SELECT epoch, halted_by,
       EXISTS (SELECT FROM reconciliations r
               WHERE r.show_id = e.show_id AND r.epoch = e.epoch AND r.ended_at IS NULL) AS rebuilding
FROM stock_epochs e WHERE show_id = $1

-- name: pools
-- $1 show.
SELECT p.pool_id, p.initial, p.restocked, p.lowered, p.reserved, p.sold, p.dead, p.taken_seq,
       p.version,
       coalesce(sum(l.units) FILTER (WHERE l.reason IN ('taken', 'redriven')), 0)::bigint AS ledger_taken,
       coalesce(sum(l.units) FILTER (WHERE l.reason = 'dead'), 0)::bigint AS ledger_dead
FROM pools p JOIN sales s ON s.sale_id = p.pool_id LEFT JOIN stock_ledger l USING (pool_id)
WHERE p.show_id = $1
GROUP BY p.pool_id

-- name: takes
-- $1 show. Every take in the books; units as its pool counts them. Units of an order that was paid
-- late are those of its re-take. A lowering cut short is an incident without buyer beside its
-- lowering, and a dead letter that was redriven an order: neither is another take.
SELECT 'order' AS kind, o.pool_id, o.epoch, o.seq, o.buyer, o.claim_id, o.quantity,
       CASE WHEN r.order_id IS NULL THEN o.quantity ELSE 0 END AS units, o.status, o.order_id,
       o.pay_by IS NOT NULL AS to_be_paid, m.order_id IS NULL AS told
FROM orders o
LEFT JOIN retakes r ON r.order_id = o.order_id AND r.units > 0
LEFT JOIN (SELECT DISTINCT order_id FROM order_moves WHERE show_id = $1 AND told_at IS NULL) AS m
       ON m.order_id = o.order_id
WHERE o.show_id = $1
UNION ALL
SELECT 'retake', r.pool_id, r.epoch, r.seq, o.buyer, r.payment_id, r.quantity, r.units, o.status,
       o.order_id, o.pay_by IS NOT NULL, true
FROM retakes r JOIN orders o USING (order_id) WHERE o.show_id = $1
UNION ALL
SELECT 'released', pool_id, epoch, seq, buyer, claim_id, quantity, 0, reason, 0, false, true
FROM incidents WHERE show_id = $1 AND buyer <> ''
UNION ALL
SELECT 'lowering', l.pool_id, l.epoch, l.seq, '', l.act_id, l.units + coalesce(i.quantity, 0),
       l.units, '', 0, false, true
FROM lowerings l JOIN pools p ON p.pool_id = l.pool_id
     LEFT JOIN incidents i ON (i.pool_id, i.epoch, i.seq) = (l.pool_id, l.epoch, l.seq)
WHERE p.show_id = $1
UNION ALL
SELECT 'dead', pool_id, epoch, seq, '', NULL, units, units, status, 0, false, true
FROM dead_letters WHERE show_id = $1 AND entry_id = '' AND status <> 'redriven'

-- name: gives
-- $1 show. Gives with the place of the take they return, if they return one: an order's own, or
-- its re-take's; of others the give's id says the place.
SELECT g.give_id, g.pool_id, g.units, g.reason, coalesce(g.buyer, '') AS buyer, g.forgiven,
       coalesce(r.epoch, o.epoch, place.epoch, 0) AS epoch, coalesce(r.seq, o.seq, place.seq, 0) AS seq
FROM gives g
CROSS JOIN LATERAL (
    SELECT CASE WHEN g.give_id ~ '^(expired|cancelled|refunded):\d+$'
                THEN split_part(g.give_id, ':', 2)::bigint END AS order_id,
           CASE WHEN g.give_id ~ '^[a-z_]+:\d+:\d+:\d+$'
                THEN split_part(g.give_id, ':', 3)::int END AS epoch,
           CASE WHEN g.give_id ~ '^[a-z_]+:\d+:\d+:\d+$'
                THEN split_part(g.give_id, ':', 4)::bigint END AS seq
) AS place
LEFT JOIN orders o ON o.order_id = place.order_id
LEFT JOIN retakes r ON r.order_id = o.order_id AND r.units > 0 AND g.reason = 'refunded'
WHERE g.show_id = $1

-- name: buyers
-- $1 show.
SELECT b.pool_id, b.buyer, b.units FROM pool_buyers b JOIN pools USING (pool_id) WHERE show_id = $1
