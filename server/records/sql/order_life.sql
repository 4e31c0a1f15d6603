-- How orders move on after their confirmation, and what Redis has not been told of it yet
-- (records/order_life.py). Locks in this order: the epoch's row, the pools' rows in order of their
-- ids, the rest; whoever writes a pool's orders, buyers or counters holds its row.

-- name: hold_epoch
-- $1 show. A rebuild of the stock waits for us, or we for it. What people are told after the commit
-- must be on disk by then, whatever the server's default is.
SELECT epoch, set_config('synchronous_commit', 'on', true)
FROM stock_epochs WHERE show_id = $1 FOR SHARE

-- name: hold_pools
-- $1 show, $2 order ids.
SELECT pool_id FROM pools
WHERE show_id = $1 AND pool_id IN (
    SELECT pool_id FROM orders WHERE show_id = $1 AND order_id = ANY($2::bigint[]))
ORDER BY pool_id
FOR NO KEY UPDATE

-- name: move
-- $1 show, $2 order ids, $3 status from, $4 status to, $5 only where the time to pay is over.
-- `at` is one for all and not now(): that is when the transaction began to wait for the locks.
UPDATE orders SET status = $4
WHERE show_id = $1 AND order_id = ANY($2::bigint[]) AND status = $3
  AND (NOT $5::bool OR pay_by < now())
RETURNING order_id, pool_id, buyer, claim_id, quantity, status, pay_by IS NOT NULL,
          (SELECT clock_timestamp()) AS at

-- name: count_moves
-- $1 pools, $2 reserved and $3 sold units to add to each.
UPDATE pools SET reserved = pools.reserved + t.reserved, sold = pools.sold + t.sold,
       version = version + 1
FROM unnest($1::bigint[], $2::int[], $3::int[]) AS t (pool, reserved, sold)
WHERE pool_id = t.pool

-- name: buyers
-- $1 pools, $2 buyers.
SELECT pool_id, buyer, units, returns, forfeited
FROM pool_buyers JOIN unnest($1::bigint[], $2::text[]) AS t (pool_id, buyer)
     USING (pool_id, buyer)

-- name: set_buyers
-- $1.. pool, buyer, units, returns, forfeited.
UPDATE pool_buyers b SET units = t.units, returns = t.returns, forfeited = t.forfeited
FROM unnest($1::bigint[], $2::text[], $3::int[], $4::int[], $5::int[])
     AS t (pool_id, buyer, units, returns, forfeited)
WHERE b.pool_id = t.pool_id AND b.buyer = t.buyer

-- name: forgiven_gives
-- $1 give ids. Those that freed their buyer's limit.
SELECT give_id FROM gives WHERE give_id = ANY($1::text[]) AND forgiven

-- name: insert_gives
-- $1 show, $2 reason, $3.. give id, pool, units, buyer, claim, forgiven.
WITH give AS (
    INSERT INTO gives (show_id, reason, give_id, pool_id, units, buyer, claim_id, forgiven)
    SELECT $1, $2, * FROM unnest($3::text[], $4::bigint[], $5::int[], $6::text[], $7::uuid[],
                                 $8::bool[])
    RETURNING *
)
INSERT INTO stock_ledger (pool_id, reason, units, give_id)
SELECT pool_id, reason, units, give_id FROM give

-- name: insert_moves
-- $1 show, $2 status from, $3 status to, $4 reason, $5 actor, $6 at, $7.. order, pool, give or NULL.
INSERT INTO order_moves (show_id, status_from, status_to, reason, actor, at, order_id, pool_id,
                         give_id)
SELECT $1, $2, $3, $4, $5, $6, * FROM unnest($7::bigint[], $8::bigint[], $9::text[])

-- name: due_orders
-- $1 shows to leave out, $2 how many. Unpaid orders whose time is over, the longest first.
SELECT show_id, order_id FROM orders
WHERE status = 'confirmed' AND pay_by < now() AND show_id <> ALL($1::text[])
ORDER BY pay_by LIMIT $2

-- name: wait_at_most
-- $1 ms that this transaction waits for each lock.
SELECT set_config('lock_timeout', $1::text, true)

-- name: shows_to_tell
-- $1 how many; in any order, as shows that are halted must not keep the others out.
SELECT show_id FROM (
    SELECT show_id FROM gives WHERE applied_at IS NULL
    UNION
    SELECT show_id FROM order_moves WHERE told_at IS NULL
) AS found
ORDER BY random() LIMIT $1

-- name: untold_gives
-- $1 show, $2 pool or NULL for all, $3 how many; oldest first. The order whose units return, if
-- any, is named with its claim.
SELECT g.give_id, g.pool_id, g.units, g.reason, coalesce(g.buyer, '') AS buyer, g.claim_id,
       g.forgiven, coalesce(s.status IN ('closing', 'closed'), false) AS closed,
       coalesce(o.order_id, 0) AS order_id,
       coalesce((extract(epoch FROM o.pay_by) * 1000)::bigint, 0) AS pay_by_ms
FROM gives g
LEFT JOIN sales s ON s.sale_id = g.pool_id
LEFT JOIN orders o ON o.show_id = g.show_id AND o.buyer = g.buyer AND o.claim_id = g.claim_id
WHERE g.applied_at IS NULL AND g.show_id = $1 AND ($2::bigint IS NULL OR g.pool_id = $2)
ORDER BY g.created_at, g.give_id LIMIT $3

-- name: untold_moves
-- $1 show, $2 pool or NULL for all, $3 how many; oldest first. Moves without units, with their
-- orders as they are now: a later step says all that an earlier one would.
SELECT m.move_id, o.order_id, o.pool_id, o.buyer, o.claim_id, o.quantity, o.price,
       o.price_version, o.epoch, o.seq, o.status,
       coalesce((extract(epoch FROM o.pay_by) * 1000)::bigint, 0) AS pay_by_ms,
       (extract(epoch FROM o.confirmed_at) * 1000)::bigint AS confirmed_ms
FROM order_moves m JOIN orders o USING (order_id)
WHERE m.told_at IS NULL AND m.give_id IS NULL AND m.show_id = $1
  AND ($2::bigint IS NULL OR m.pool_id = $2)
ORDER BY m.move_id LIMIT $3

-- name: counters
-- $1 show, $2 pools.
SELECT pool_id, reserved, sold, dead, version FROM pools
WHERE show_id = $1 AND pool_id = ANY($2::bigint[]) ORDER BY pool_id

-- name: mark_told
-- $1 give ids, $2 ids of moves without units.
WITH applied AS (
    UPDATE gives SET applied_at = now() WHERE give_id = ANY($1::text[]) AND applied_at IS NULL
)
UPDATE order_moves SET told_at = now()
WHERE told_at IS NULL AND (give_id = ANY($1::text[]) OR move_id = ANY($2::bigint[]))

-- name: moves_of_order
-- $1 order.
SELECT status_from, status_to, reason, actor,
       (extract(epoch FROM at) * 1000)::bigint AS at_ms
FROM order_moves WHERE order_id = $1 ORDER BY move_id

-- name: payments_of_order
-- $1 order.
SELECT payment_id, provider, status, amount, currency, reason,
       (extract(epoch FROM created_at) * 1000)::bigint AS created_ms
FROM payments WHERE order_id = $1 ORDER BY created_at, payment_id
