-- How takes enter the books. All of it in one transaction per batch of one show, in this order: the
-- epoch's row, the pools' rows in order of their ids, the rest (records/orders.py).

-- name: lock_epoch
-- $1 show. A rebuild of the stock waits for us, or we for it. Buyers are told `confirmed` after the
-- commit, so it must be on disk by then, whatever the server's default is.
SELECT epoch, halted_by, set_config('synchronous_commit', 'on', true)
FROM stock_epochs WHERE show_id = $1 FOR SHARE

-- name: lock_pools
-- $1 show, $2 pool ids. Whoever holds these rows may write the pools' orders and buyers.
SELECT p.pool_id, p.taken_seq, p.limit_per_buyer, p.reserved, p.sold, p.dead, p.version,
       p.initial + p.restocked - p.lowered - p.reserved - p.sold - p.dead AS room,
       coalesce(s.pay_within_s, 0) AS pay_within_s,
       EXISTS (SELECT FROM webhook_endpoints e WHERE e.show_id = $1 AND e.removed_at IS NULL)
           AS has_webhook
FROM pools p LEFT JOIN sales s ON s.sale_id = p.pool_id
WHERE p.show_id = $1 AND p.pool_id = ANY($2::bigint[])
ORDER BY p.pool_id
FOR NO KEY UPDATE OF p

-- name: units_bought
-- $1 pool, $2 buyers.
SELECT buyer, units FROM pool_buyers WHERE pool_id = $1 AND buyer = ANY($2::text[])

-- name: new_orders
-- $1 how many. Their ids and the moment they are confirmed. Time to pay counts from here, not from
-- now(): that is when the transaction began to wait for the rows it locks.
SELECT ARRAY(SELECT nextval('orders_order_id_seq') FROM generate_series(1, $1::int)) AS ids,
       date_trunc('milliseconds', clock_timestamp()) AS at

-- name: insert_orders
-- $1 show, $2 epoch, $3 moment, $4 pool, $5 price, $6 price version, $7 pay by, $8.. id, seq, buyer,
-- claim, quantity.
INSERT INTO orders (order_id, show_id, epoch, confirmed_at, pool_id, price, price_version, pay_by,
                    seq, buyer, claim_id, quantity)
OVERRIDING SYSTEM VALUE
SELECT t.id, $1, $2, $3, $4, $5, $6, $7, t.seq, t.buyer, t.claim, t.quantity
FROM unnest($8::bigint[], $9::bigint[], $10::text[], $11::uuid[], $12::int[])
     AS t (id, seq, buyer, claim, quantity)

-- name: insert_buyers
-- $1 pools, $2 buyers, $3 units of each, who had none of the pool before. Without ON CONFLICT, which
-- costs twice as much: whoever writes here holds the pool's row.
INSERT INTO pool_buyers (pool_id, buyer, units)
SELECT * FROM unnest($1::bigint[], $2::text[], $3::int[])

-- name: set_units_bought
-- $1 pools, $2 buyers, $3 units of each now.
UPDATE pool_buyers SET units = t.units
FROM unnest($1::bigint[], $2::text[], $3::int[]) AS t (pool, buyer, units)
WHERE pool_buyers.pool_id = t.pool AND pool_buyers.buyer = t.buyer

-- name: count_takes
-- $1 epoch, $2.. of each pool: pool, units reserved, sold, taken again for late payments (which
-- their orders' move has counted), dead and lowered, first and last seq.
-- The ledger gets one row for what buyers took and one for what died.
WITH moved AS (
    SELECT * FROM unnest($2::bigint[], $3::int[], $4::int[], $5::int[], $6::int[], $7::int[],
                         $8::bigint[], $9::bigint[])
             AS t (pool, reserved, sold, retaken, dead, lowered, seq_first, seq_last)
), ledger AS (
    INSERT INTO stock_ledger (pool_id, reason, units, epoch, seq_first, seq_last)
    SELECT pool, reason, units, $1, seq_first, seq_last
    FROM moved,
         LATERAL (VALUES ('taken', reserved + sold + retaken), ('dead', dead))
             AS kind (reason, units)
    WHERE units > 0
)
UPDATE pools
SET reserved = pools.reserved + moved.reserved, sold = pools.sold + moved.sold,
    dead = pools.dead + moved.dead, lowered = pools.lowered + moved.lowered,
    epoch = $1, taken_seq = moved.seq_last, version = version + 1
FROM moved WHERE pools.pool_id = moved.pool
RETURNING pools.pool_id, pools.reserved, pools.sold, pools.dead, pools.version

-- name: insert_lowerings
-- $1 epoch, $2.. pool, seq, units, closing, act id.
WITH lowering AS (
    INSERT INTO lowerings (epoch, pool_id, seq, units, closing, act_id)
    SELECT $1, * FROM unnest($2::bigint[], $3::bigint[], $4::int[], $5::bool[], $6::uuid[])
    RETURNING pool_id, seq, units, closing
), ledger AS (
    INSERT INTO stock_ledger (pool_id, reason, units, epoch, seq_first, seq_last)
    SELECT pool_id, 'lowered', units, $1, seq, seq FROM lowering WHERE units > 0
), returned AS (
    UPDATE skus SET allotted = allotted - back.units
    FROM (SELECT p.sku_id, sum(l.units)::int AS units
          FROM lowering l JOIN pools p USING (pool_id) GROUP BY p.sku_id) AS back
    WHERE skus.sku_id = back.sku_id
)
UPDATE sales SET status = 'closed'
FROM lowering WHERE sale_id = lowering.pool_id AND lowering.closing

-- name: insert_incidents
-- $1 show, $2 epoch, $3.. pool, seq, buyer, claim id, quantity, price, price version, reason. Units
-- that the pool has but the buyer may not have are given back.
WITH incident AS (
    INSERT INTO incidents (show_id, epoch, pool_id, seq, buyer, claim_id, quantity, price,
                           price_version, reason)
    SELECT $1, $2, * FROM unnest($3::bigint[], $4::bigint[], $5::text[], $6::uuid[], $7::int[],
                                 $8::bigint[], $9::int[], $10::text[])
    RETURNING *
), give AS (
    INSERT INTO gives (give_id, show_id, pool_id, units, buyer, claim_id, reason)
    SELECT format('incident:%s:%s:%s', pool_id, epoch, seq), show_id, pool_id, quantity, buyer,
           claim_id, 'released_by_incident'
    FROM incident WHERE reason = 'over_limit'
    RETURNING *
)
INSERT INTO stock_ledger (pool_id, reason, units, epoch, give_id)
SELECT pool_id, reason, units, $2, give_id FROM give

-- name: insert_dead_letters
-- $1 show, $2 epoch, $3.. pool, seq, entry id, units, payload, error.
INSERT INTO dead_letters (show_id, epoch, pool_id, seq, entry_id, units, payload, error)
SELECT $1, $2, * FROM unnest($3::bigint[], $4::bigint[], $5::text[], $6::int[], $7::bytea[],
                             $8::text[])
ON CONFLICT DO NOTHING

-- name: fates
-- $1 show, $2 epoch, $3 pools, $4 seqs: what the books have at these places.
SELECT k.pool, k.seq, o.order_id, o.status,
       (extract(epoch FROM o.pay_by) * 1000)::bigint AS pay_by_ms,
       coalesce(o.buyer, i.buyer, late.buyer, '') AS buyer,
       coalesce(o.claim_id, i.claim_id, l.act_id, r.payment_id) AS claim_id,
       coalesce(o.quantity, i.quantity + coalesce(l.units, 0), l.units, r.quantity) AS quantity,
       o.price, o.price_version, i.reason, d.error, l.units AS lowered
FROM unnest($3::bigint[], $4::bigint[]) AS k (pool, seq)
LEFT JOIN orders o ON o.pool_id = k.pool AND o.epoch = $2 AND o.seq = k.seq AND o.show_id = $1
LEFT JOIN incidents i ON i.pool_id = k.pool AND i.epoch = $2 AND i.seq = k.seq
LEFT JOIN lowerings l ON l.pool_id = k.pool AND l.epoch = $2 AND l.seq = k.seq
LEFT JOIN retakes r ON r.pool_id = k.pool AND r.epoch = $2 AND r.seq = k.seq
LEFT JOIN orders late ON late.order_id = r.order_id
LEFT JOIN dead_letters d ON d.show_id = $1 AND d.pool_id = k.pool AND d.epoch = $2
                        AND d.seq = k.seq AND d.entry_id = ''

-- name: halt
-- $1 show, $2 what was seen, $3 in which epoch. The first one stays.
UPDATE stock_epochs SET halted_at = now(), halted_by = $2
WHERE show_id = $1 AND halted_at IS NULL AND epoch = $3

-- name: shows_with_work
-- $1 days. Shows whose order stream fills (active: a sale is running), and those that Redis must
-- have for their viewers and may still hold something of (not ended, or at most so many days ago).
-- Asked twice a second: it must not read what was over long ago.
SELECT show_id, bool_or(active) AS active
FROM (
    SELECT show_id, true AS active FROM sales WHERE status IN ('scheduled', 'open', 'closing')
    UNION ALL
    SELECT show_id, false FROM shows WHERE status <> 'ended'
    UNION ALL
    SELECT show_id, false FROM shows WHERE ended_at > now() - make_interval(days => $1)
) AS found
GROUP BY show_id

-- name: shows_waiting
-- Shows with something that only a sound stock lets go on: a halt, units, steps of orders or decided
-- dead letters that Redis has not been told for a second, lowerings and late payments to be decided.
SELECT show_id FROM stock_epochs WHERE halted_at IS NOT NULL
UNION
SELECT show_id FROM gives WHERE applied_at IS NULL AND created_at < now() - interval '1 second'
UNION
SELECT show_id FROM order_moves WHERE told_at IS NULL AND at < now() - interval '1 second'
UNION
SELECT show_id FROM dead_letters WHERE untold_since < now() - interval '1 second'
UNION
SELECT show_id FROM stock_requests
WHERE status = 'pending' AND at < now() - interval '1 second'
UNION
SELECT show_id FROM payments WHERE status = 'retake_pending'

-- name: shows_returning
-- Shows with sales that are over but still have units: they came back late, and are on their way to
-- the inventory.
SELECT DISTINCT p.show_id FROM pools p JOIN sales s ON s.sale_id = p.pool_id
WHERE s.status = 'closed' AND p.initial + p.restocked - p.lowered > p.reserved + p.sold + p.dead
