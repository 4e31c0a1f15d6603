-- Rules that the books of a show must keep in themselves, named as the audit names a breach of them
-- (server/audit/report.py). $1 show. Each row: pool, buyer, order, what is wrong.

-- name: buyer_units
-- Counted are the units of standing orders and the forfeited ones, within the limit.
SELECT p.pool_id, coalesce(b.buyer, o.buyer) AS buyer, 0::bigint,
       format('%s units counted, %s ordered, %s forfeited, limit %s', coalesce(b.units, 0),
              coalesce(o.units, 0), coalesce(b.forfeited, 0), p.limit_per_buyer)
FROM (SELECT b.* FROM pool_buyers b JOIN pools USING (pool_id) WHERE show_id = $1) AS b
FULL JOIN (
    SELECT pool_id, buyer, sum(quantity) AS units FROM orders
    WHERE show_id = $1 AND status IN ('confirmed', 'paid', 'fulfilled') GROUP BY pool_id, buyer
) AS o USING (pool_id, buyer)
JOIN pools p ON p.pool_id = coalesce(b.pool_id, o.pool_id)
WHERE coalesce(b.units, 0) <> coalesce(o.units, 0) + coalesce(b.forfeited, 0)
   OR coalesce(b.units, 0) > p.limit_per_buyer

-- name: sku_units
SELECT 0::bigint, '', 0::bigint,
       format('sku %s: %s units allotted, its sales have %s', k.sku_id, k.allotted,
              coalesce(sum(p.initial + p.restocked - p.lowered), 0))
FROM skus k LEFT JOIN pools p USING (sku_id)
WHERE k.show_id = $1
GROUP BY k.sku_id
HAVING k.allotted <> coalesce(sum(p.initial + p.restocked - p.lowered), 0)

-- name: order_history
-- $2 steps that are allowed, as `from>to`.
WITH steps AS (
    SELECT *, lag(status_to, 1, CASE reason WHEN 'redrive' THEN 'dead' ELSE 'confirmed' END)
                  OVER by_order AS before,
           lead(status_to) OVER by_order IS NULL AS is_last
    FROM order_moves WHERE show_id = $1 AND reason <> 'redrive'
    WINDOW by_order AS (PARTITION BY order_id ORDER BY move_id)
)
SELECT o.pool_id, o.buyer, o.order_id,
       format('order %s is %s: its step %s > %s followed %s', o.order_id, o.status, status_from,
              status_to, before)
FROM steps JOIN orders o USING (order_id)
WHERE status_from <> before OR status_from || '>' || status_to <> ALL($2::text[])
   OR is_last AND status_to <> o.status
UNION ALL
SELECT o.pool_id, o.buyer, o.order_id, format('order %s is %s without a step', o.order_id, o.status)
FROM orders o
WHERE o.show_id = $1 AND o.status <> 'confirmed'
  AND NOT EXISTS (SELECT FROM order_moves m WHERE m.order_id = o.order_id)

-- name: order_give
-- Every step that gives units back has its give with just these units, and no other step has one.
SELECT o.pool_id, o.buyer, o.order_id,
       format('order %s: its step to %s has give %s of %s units for %s ordered', o.order_id,
              m.status_to, coalesce(m.give_id, 'none'), coalesce(g.units, 0), o.quantity)
FROM order_moves m JOIN orders o USING (order_id) LEFT JOIN gives g ON g.give_id = m.give_id
WHERE m.show_id = $1
  AND CASE WHEN m.status_to IN ('expired', 'cancelled', 'refunded')
           THEN (g.reason, g.pool_id, g.units, g.buyer, g.claim_id)
                IS DISTINCT FROM (m.status_to, o.pool_id, o.quantity, o.buyer, o.claim_id)
           ELSE m.give_id IS NOT NULL END
UNION ALL
SELECT g.pool_id, coalesce(g.buyer, ''), 0::bigint, format('give %s has no step', g.give_id)
FROM gives g
WHERE g.show_id = $1 AND g.reason IN ('expired', 'cancelled', 'refunded')
  AND NOT EXISTS (SELECT FROM order_moves m WHERE m.give_id = g.give_id)

-- name: order_retake
-- An expired order became paid by exactly one re-take that was kept.
SELECT o.pool_id, o.buyer, o.order_id,
       format('order %s was paid late %s times, with %s re-takes', o.order_id,
              coalesce(m.n, 0), coalesce(r.n, 0))
FROM (
    SELECT order_id, count(*) AS n FROM order_moves
    WHERE show_id = $1 AND status_from = 'expired' AND status_to = 'paid' GROUP BY order_id
) AS m
FULL JOIN (
    SELECT r.order_id, count(*) AS n FROM retakes r JOIN pools p USING (pool_id)
    WHERE p.show_id = $1 AND r.units > 0 GROUP BY r.order_id
) AS r USING (order_id)
JOIN orders o ON o.order_id = coalesce(m.order_id, r.order_id)
WHERE coalesce(m.n, 0) <> coalesce(r.n, 0)

-- name: ledger
SELECT g.pool_id, coalesce(g.buyer, ''), 0::bigint,
       format('give %s of %s units has %s in the ledger', g.give_id, g.units, coalesce(l.units, 0))
FROM gives g LEFT JOIN stock_ledger l USING (give_id)
WHERE g.show_id = $1 AND (g.pool_id, g.units) IS DISTINCT FROM (l.pool_id, l.units)
UNION ALL
SELECT p.pool_id, '', 0::bigint,
       format('%s units restocked, gives of %s', p.restocked, coalesce(sum(g.units), 0))
FROM pools p LEFT JOIN gives g ON g.pool_id = p.pool_id AND g.reason = 'restock'
WHERE p.show_id = $1
GROUP BY p.pool_id
HAVING p.restocked <> coalesce(sum(g.units), 0)

-- name: payment
-- Captured money has a paid order and the reverse; what was refunded has none.
SELECT o.pool_id, o.buyer, o.order_id,
       format('order %s is %s, its payment %s is captured', o.order_id, o.status, p.payment_id)
FROM payments p JOIN orders o USING (order_id)
WHERE p.show_id = $1 AND p.status = 'captured' AND o.status NOT IN ('paid', 'fulfilled')
UNION ALL
SELECT o.pool_id, o.buyer, o.order_id,
       format('order %s is paid, and no payment of it is captured', o.order_id)
FROM orders o
WHERE o.show_id = $1 AND o.status = 'paid'
  AND EXISTS (SELECT FROM order_moves m WHERE m.order_id = o.order_id AND m.status_to = 'paid'
                                          AND m.reason IN ('payment', 'retake'))
  AND NOT EXISTS (SELECT FROM payments p
                  WHERE p.order_id = o.order_id AND p.status = 'captured')
UNION ALL
SELECT o.pool_id, o.buyer, o.order_id,
       format('order %s is %s, its payment %s waits for a re-take', o.order_id, o.status,
              p.payment_id)
FROM payments p JOIN orders o USING (order_id)
WHERE p.show_id = $1 AND p.status = 'retake_pending' AND o.status <> 'expired'
UNION ALL
SELECT o.pool_id, o.buyer, o.order_id,
       format('payment %s is of %s %s, its order of %s %s', p.payment_id, p.amount, p.currency,
              o.price * o.quantity, k.currency)
FROM payments p JOIN orders o USING (order_id) JOIN pools USING (pool_id) JOIN skus k USING (sku_id)
WHERE p.show_id = $1 AND (p.amount, p.currency) <> (o.price * o.quantity, k.currency)

-- name: refund
-- Money that has to go back, and whose provider refuses to give it back; or that went back twice.
SELECT o.pool_id, o.buyer, o.order_id,
       format('payment %s of order %s cannot be refunded: %s', p.payment_id, o.order_id,
              p.last_error)
FROM payments p JOIN orders o USING (order_id)
WHERE p.show_id = $1 AND p.status = 'refund_requested' AND p.next_attempt_at IS NULL
UNION ALL
SELECT o.pool_id, o.buyer, o.order_id,
       format('payment %s of order %s was refunded by hand and by its provider', p.payment_id,
              p.order_id)
FROM payments p JOIN orders o USING (order_id)
WHERE p.show_id = $1 AND p.refunded_twice

-- name: late
-- $2 seconds. Work that was committed and that no worker has done, nor tried to in the meantime.
WITH due AS (SELECT now() - make_interval(secs => $2) AS at)
SELECT pool_id, coalesce(buyer, ''), 0::bigint,
       format('give %s is not in Redis since %s', give_id, created_at)
FROM gives, due WHERE show_id = $1 AND applied_at IS NULL AND created_at < due.at
UNION ALL
SELECT pool_id, '', order_id,
       format('Redis was not told that order %s is %s since %s', order_id, status_to, m.at)
FROM order_moves m, due WHERE show_id = $1 AND told_at IS NULL AND m.at < due.at
UNION ALL
SELECT pool_id, '', 0::bigint,
       format('Redis was not told what became of dead letter %s since %s', dead_letter_id,
              untold_since)
FROM dead_letters, due WHERE show_id = $1 AND untold_since < due.at
UNION ALL
SELECT 0, p.buyer, p.order_id,
       format('payment %s should have left %s at %s', p.payment_id, p.status, p.next_attempt_at)
FROM payments p, due
WHERE show_id = $1 AND (status = 'retake_pending'
                        OR status = 'refund_requested' AND next_attempt_at IS NOT NULL)
  AND coalesce(next_attempt_at, updated_at) < due.at
UNION ALL
SELECT 0, p.buyer, p.order_id,
       format('event %s of payment %s waits since %s', e.event_id, p.payment_id, e.received_at)
FROM due, payment_events e JOIN payments p
     ON p.provider = e.provider AND (p.payment_id = e.payment_id OR p.external_id = e.external_id)
WHERE p.show_id = $1 AND e.handled_at IS NULL AND e.received_at < due.at
UNION ALL
SELECT 0, '', 0, format('outbox message %s waits since %s', message_id, created_at)
FROM outbox, due WHERE show_id = $1 AND created_at < due.at
