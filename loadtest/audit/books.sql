-- What the load tester's audit reads of one show, all in one REPEATABLE READ snapshot, except
-- `waiting`. $1 show, $2 µs since 1970 at the run's zero: instants come back as t_us.

-- name: waiting
-- $1 show. How much is committed that Redis has not been told.
SELECT (SELECT count(*) FROM gives WHERE show_id = $1 AND applied_at IS NULL)
     + (SELECT count(*) FROM order_moves WHERE show_id = $1 AND told_at IS NULL)

-- name: now
SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint

-- name: epoch
SELECT epoch FROM stock_epochs WHERE show_id = $1

-- name: pools
SELECT pool_id, limit_per_buyer, initial, restocked, lowered, reserved, sold, dead, version, status
FROM pools JOIN sales ON sale_id = pool_id WHERE pools.show_id = $1 ORDER BY pool_id

-- name: prices
SELECT sale_id, price_version, price FROM sales WHERE show_id = $1
UNION
SELECT sale_id, p.price_version, p.price
FROM sale_prices p JOIN sales USING (sale_id) WHERE show_id = $1

-- name: orders
SELECT order_id, pool_id, buyer, claim_id, quantity, price, price_version, epoch, seq, status,
       (extract(epoch FROM confirmed_at) * 1000000)::bigint - $2 AS t_us
FROM orders WHERE show_id = $1 ORDER BY pool_id, epoch, seq

-- name: moves
SELECT order_id, status_to, reason,
       (extract(epoch FROM greatest(at, told_at)) * 1000000)::bigint - $2 AS told_us,
       (extract(epoch FROM at) * 1000000)::bigint - $2 AS t_us
FROM order_moves WHERE show_id = $1 ORDER BY move_id

-- name: gives
SELECT pool_id, units, coalesce(buyer, '') AS buyer, claim_id, reason,
       (extract(epoch FROM created_at) * 1000000)::bigint - $2 AS t_us,
       coalesce((extract(epoch FROM applied_at) * 1000000)::bigint - $2, 0) AS applied_us
FROM gives WHERE show_id = $1 ORDER BY created_at

-- name: released
-- Holds that the books could not keep, and those proven too late: their buyers were told.
SELECT pool_id, buyer, claim_id, epoch, seq, quantity, reason,
       (extract(epoch FROM at) * 1000000)::bigint - $2 AS t_us
FROM incidents WHERE show_id = $1 AND buyer <> ''
UNION ALL
SELECT pool_id, buyer, claim_id, epoch, seq, quantity, refusal,
       (extract(epoch FROM at) * 1000000)::bigint - $2
FROM late_releases WHERE show_id = $1

-- name: other_takes
-- Takes that are no orders, by their place in the sequence. An incident without buyer belongs to a
-- lowering that was cut short, and a dead letter that was redriven is an order by now.
SELECT pool_id, epoch, seq, 'incident' AS kind, quantity AS units, reason AS detail,
       (extract(epoch FROM at) * 1000000)::bigint - $2 AS t_us
FROM incidents WHERE show_id = $1 AND buyer <> ''
UNION ALL
SELECT pool_id, lowerings.epoch, seq, 'lowering', units,
       CASE WHEN closing THEN 'sale closed' ELSE '' END,
       (extract(epoch FROM at) * 1000000)::bigint - $2
FROM lowerings JOIN pools USING (pool_id) WHERE show_id = $1
UNION ALL
SELECT retakes.pool_id, retakes.epoch, retakes.seq, 'retake', units, reason,
       (extract(epoch FROM at) * 1000000)::bigint - $2
FROM retakes JOIN orders USING (order_id) WHERE show_id = $1
UNION ALL
SELECT pool_id, epoch, seq, 'dead letter', units, error,
       (extract(epoch FROM at) * 1000000)::bigint - $2
FROM dead_letters WHERE show_id = $1 AND status <> 'redriven' AND entry_id = ''

-- name: buyers
SELECT pool_id, buyer, units, forfeited
FROM pool_buyers JOIN pools USING (pool_id) WHERE show_id = $1
