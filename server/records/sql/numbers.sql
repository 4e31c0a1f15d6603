-- What a show's numbers are, and were over time. Orders that stand: confirmed, paid or fulfilled.

-- name: shows_on
-- $1 an instant. Shows that are on, and whether they have a sample of it.
SELECT show_id,
       EXISTS (SELECT FROM show_samples WHERE show_id = s.show_id AND at = $1) AS is_sampled
FROM shows s WHERE status IN ('live', 'paused')

-- name: units
-- $1 shows. Units of their started sales, and a number that every change of them raises.
SELECT p.show_id,
       sum(p.initial + p.restocked - p.lowered - p.reserved - p.sold - p.dead)::bigint AS left_units,
       sum(p.reserved + p.dead)::bigint AS held, sum(p.sold)::bigint AS sold,
       sum(p.version)::bigint AS version
FROM pools p JOIN sales s ON s.sale_id = p.pool_id
WHERE p.show_id = ANY($1::text[]) AND s.status <> 'draft'
GROUP BY p.show_id

-- name: money
-- $1 show. Orders that stand, by currency.
SELECT k.currency, sum(o.orders)::bigint AS orders, sum(o.amount)::bigint AS amount
FROM (SELECT pool_id, count(*) AS orders, sum(price * quantity) AS amount FROM orders
      WHERE show_id = $1 AND status IN ('confirmed', 'paid', 'fulfilled') GROUP BY pool_id) AS o
JOIN pools USING (pool_id) JOIN skus k USING (sku_id)
GROUP BY k.currency

-- name: insert_samples
-- $1 the instant, $2.. show and its numbers. Another worker may have been quicker.
INSERT INTO show_samples (at, show_id, online, likes, lines, claims, left_units, held, sold, orders,
                          amounts)
SELECT $1, * FROM unnest($2::text[], $3::int[], $4::bigint[], $5::bigint[], $6::bigint[],
                         $7::int[], $8::int[], $9::int[], $10::bigint[], $11::jsonb[])
ON CONFLICT DO NOTHING

-- name: forget_samples
-- $1 shows, $2 before this instant.
DELETE FROM show_samples WHERE show_id = ANY($1::text[]) AND at < $2

-- name: span
-- $1 show, $2 after this instant. From the first sample to the last.
SELECT coalesce(extract(epoch FROM max(at) - min(at)), 0)::float8 FROM show_samples
WHERE show_id = $1 AND at > $2

-- name: samples
-- $1 show, $2 after this instant, $3 an interval: the last sample of each.
SELECT DISTINCT ON (date_bin($3, at, 'epoch'))
       at, online, likes, lines, claims, left_units, held, sold, orders, amounts
FROM show_samples WHERE show_id = $1 AND at > $2
ORDER BY date_bin($3, at, 'epoch'), at DESC

-- name: totals
-- $1 show. A total that falls was lost in Redis: the greatest is what is known.
SELECT coalesce(max(online), 0) AS peak_online,
       (SELECT at FROM show_samples WHERE show_id = $1 ORDER BY online DESC, at LIMIT 1) AS peak_at,
       coalesce(round(avg(online)), 0)::int AS avg_online, coalesce(max(likes), 0) AS likes,
       coalesce(max(lines), 0) AS lines, coalesce(max(claims), 0) AS claims
FROM show_samples WHERE show_id = $1

-- name: by_status
-- $1 show.
SELECT status, count(*) AS orders FROM orders WHERE show_id = $1 GROUP BY status

-- name: buyers
-- $1 show. People with orders that stand.
SELECT count(DISTINCT buyer) FROM orders
WHERE show_id = $1 AND status IN ('confirmed', 'paid', 'fulfilled')

-- name: lowered
-- $1 show. Units that its host took out of sales; what closing a sale takes back is none of them.
SELECT pool_id, sum(l.units)::bigint AS units FROM lowerings l JOIN pools p USING (pool_id)
WHERE p.show_id = $1 AND NOT l.closing GROUP BY pool_id

-- name: sold_out
-- $1 show. When buyers had taken all units of a sale for the first time, as its ledger has it.
SELECT pool_id, min(at) AS at
FROM (SELECT l.pool_id, l.at, l.reason,
             sum(CASE WHEN l.reason IN ('taken', 'dead', 'redriven', 'lowered') THEN -l.units
                      WHEN l.reason = 'released_by_incident' THEN 0
                      ELSE l.units END)
                 OVER (PARTITION BY l.pool_id ORDER BY l.entry_id) AS left_units
      FROM stock_ledger l JOIN pools p USING (pool_id) WHERE p.show_id = $1) AS entries
WHERE reason = 'taken' AND left_units <= 0
GROUP BY pool_id

-- name: pins
-- $1 show, $2 how many. The newest times that a product was pinned, until the next pin, the end of
-- the show or now; people online then, and the orders confirmed then that stand.
WITH acts AS (
    SELECT (detail ->> 'product')::bigint AS product_id, at AS since,
           lead(at) OVER (ORDER BY at, act_id) AS until
    FROM host_acts WHERE show_id = $1 AND action = 'pin'
), pins AS (
    SELECT row_number() OVER (ORDER BY a.since DESC) AS n, a.product_id, p.title, a.since,
           coalesce(a.until, s.ended_at, now()) AS until
    FROM acts a JOIN products p USING (product_id) JOIN shows s ON s.show_id = p.show_id
    WHERE s.show_id = $1
    ORDER BY n LIMIT $2
), bought AS MATERIALIZED (
    SELECT w.n, o.buyer, o.quantity, o.price * o.quantity AS amount, k.currency
    FROM orders o JOIN pools USING (pool_id) JOIN skus k USING (sku_id)
    JOIN pins w ON w.product_id = k.product_id
               AND o.confirmed_at >= w.since AND o.confirmed_at < w.until
    WHERE o.show_id = $1 AND o.status IN ('confirmed', 'paid', 'fulfilled')
), counts AS (
    SELECT n, count(DISTINCT buyer) AS buyers, count(*) AS orders, sum(quantity) AS units
    FROM bought GROUP BY n
), amounts AS (
    SELECT n, jsonb_object_agg(currency, amount) AS amounts
    FROM (SELECT n, currency, sum(amount) AS amount FROM bought GROUP BY n, currency) AS each_one
    GROUP BY n
)
SELECT w.product_id, w.title, w.since, w.until,
       (SELECT avg(online)::float8 FROM show_samples
        WHERE show_id = $1 AND at >= w.since AND at < w.until) AS online,
       coalesce(c.buyers, 0) AS buyers, coalesce(c.orders, 0) AS orders,
       coalesce(c.units, 0)::bigint AS units, coalesce(a.amounts, '{}') AS amounts
FROM pins w LEFT JOIN counts c USING (n) LEFT JOIN amounts a USING (n)
ORDER BY w.n DESC

-- name: untold
-- $1 show. What is here and not in Redis yet; of things that say since when, after a second.
SELECT (SELECT count(*) FROM shows WHERE show_id = $1 AND revision > applied_revision)
     + (SELECT count(*) FROM sales
        WHERE show_id = $1 AND revision > applied_revision AND status <> 'draft')
     + (SELECT count(*) FROM gives WHERE show_id = $1 AND applied_at IS NULL
                                     AND created_at < now() - interval '1 second')
     + (SELECT count(*) FROM order_moves WHERE show_id = $1 AND told_at IS NULL
                                           AND at < now() - interval '1 second')
     + (SELECT count(*) FROM dead_letters WHERE show_id = $1
                                            AND untold_since < now() - interval '1 second')
     + (SELECT count(*) FROM stock_requests WHERE show_id = $1 AND status = 'pending'
                                              AND at < now() - interval '1 second')
