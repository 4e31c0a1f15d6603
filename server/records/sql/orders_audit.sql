-- What the audit reads, all in one REPEATABLE READ snapshot except `shows`, and what is read before
-- Redis is cut: `projected_pools` and `applied_gives`.

-- name: shows
-- $1 show or NULL for all that ever started a sale.
SELECT show_id FROM shows
WHERE show_id = $1 OR ($1::text IS NULL AND EXISTS (
    SELECT FROM sales WHERE sales.show_id = shows.show_id AND sales.status <> 'draft'))
ORDER BY show_id

-- name: projected_pools
-- $1 show. Pools that Redis must have by now; a draft that was dropped never got there.
SELECT sale_id, epoch, taken_seq FROM sales JOIN pools ON pool_id = sale_id
WHERE sales.show_id = $1 AND applied_revision > 0 AND status <> 'draft'
  AND (status <> 'closed' OR EXISTS (SELECT FROM lowerings l WHERE l.pool_id = sale_id))

-- name: applied_gives
-- $1 show. Gives that were seen to be in force in Redis.
SELECT give_id FROM gives WHERE show_id = $1 AND applied_at IS NOT NULL

-- name: epoch
SELECT epoch, halted_by FROM stock_epochs WHERE show_id = $1

-- name: pools
-- $1 show.
SELECT p.pool_id, p.initial, p.restocked, p.lowered, p.reserved, p.sold, p.dead, p.taken_seq,
       p.version, s.pay_within_s,
       coalesce(sum(l.units) FILTER (WHERE l.reason = 'taken'), 0)::bigint AS ledger_taken,
       coalesce(sum(l.units) FILTER (WHERE l.reason = 'dead'), 0)::bigint AS ledger_dead
FROM pools p JOIN sales s ON s.sale_id = p.pool_id LEFT JOIN stock_ledger l USING (pool_id)
WHERE p.show_id = $1
GROUP BY p.pool_id, s.pay_within_s

-- name: takes
-- $1 show. Every take in the books; units as its pool counts them. A lowering cut short is an
-- incident without buyer beside its lowering: not another take.
SELECT 'order' AS kind, pool_id, epoch, seq, buyer, claim_id, quantity, quantity AS units, status,
       order_id, price
FROM orders WHERE show_id = $1
UNION ALL
SELECT 'released', pool_id, epoch, seq, buyer, claim_id, quantity, 0, reason, 0, 0
FROM incidents WHERE show_id = $1 AND buyer <> ''
UNION ALL
SELECT 'lowering', l.pool_id, l.epoch, l.seq, '', l.act_id, l.units + coalesce(i.quantity, 0),
       l.units, '', 0, 0
FROM lowerings l JOIN pools p ON p.pool_id = l.pool_id
     LEFT JOIN incidents i ON (i.pool_id, i.epoch, i.seq) = (l.pool_id, l.epoch, l.seq)
WHERE p.show_id = $1
UNION ALL
SELECT 'dead', pool_id, epoch, seq, '', NULL, units, units, status, 0, 0
FROM dead_letters WHERE show_id = $1 AND entry_id = ''

-- name: gives
-- $1 show. Gives with the place of the take they return, if they return one.
SELECT g.give_id, g.pool_id, g.units, g.reason, coalesce(o.epoch, i.epoch, 0) AS epoch,
       coalesce(o.seq, i.seq, 0) AS seq
FROM gives g
LEFT JOIN orders o ON o.show_id = g.show_id AND o.buyer = g.buyer AND o.claim_id = g.claim_id
LEFT JOIN incidents i ON i.show_id = g.show_id AND i.buyer = g.buyer AND i.claim_id = g.claim_id
WHERE g.show_id = $1

-- name: wrong_buyers
-- $1 show. Buyers whose counted units are not those of their orders, or above the limit.
SELECT p.pool_id, coalesce(b.buyer, o.buyer) AS buyer, coalesce(b.units, 0) AS counted,
       coalesce(o.units, 0)::bigint AS ordered, p.limit_per_buyer
FROM (SELECT b.* FROM pool_buyers b JOIN pools USING (pool_id) WHERE show_id = $1) AS b
FULL JOIN (
    SELECT pool_id, buyer, sum(quantity) AS units FROM orders
    WHERE show_id = $1 AND status IN ('confirmed', 'paid', 'fulfilled') GROUP BY pool_id, buyer
) AS o USING (pool_id, buyer)
JOIN pools p ON p.pool_id = coalesce(b.pool_id, o.pool_id)
WHERE coalesce(b.units, 0) <> coalesce(o.units, 0) OR coalesce(o.units, 0) > p.limit_per_buyer

-- name: wrong_skus
-- $1 show. Skus whose allotted units are not those of their sales.
SELECT k.sku_id, k.allotted, coalesce(sum(p.initial + p.restocked - p.lowered), 0)::bigint AS units
FROM skus k LEFT JOIN pools p USING (sku_id)
WHERE k.show_id = $1
GROUP BY k.sku_id
HAVING k.allotted <> coalesce(sum(p.initial + p.restocked - p.lowered), 0)
