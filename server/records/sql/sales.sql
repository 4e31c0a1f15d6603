-- Flash sales: a row of `pools` (units) and a row of `sales` (terms) with the same id.
-- Locks are taken in the order shows, pools, skus, sales everywhere.

-- name: insert_pool
INSERT INTO pools (show_id, sku_id, limit_per_buyer, initial) VALUES ($1, $2, $3, $4)
RETURNING pool_id

-- name: insert_sale
-- A draft is not in Redis: applied_revision stays 0 until its first projection.
INSERT INTO sales (sale_id, show_id, price, countdown_s, duration_s, pay_within_s)
VALUES ($1, $2, $3, $4, $5, $6)

-- name: insert_price
INSERT INTO sale_prices (sale_id, price_version, price) VALUES ($1, $2, $3)

-- name: sales_by_id
SELECT s.sale_id, s.show_id, s.status, s.price, s.price_version, s.countdown_s, s.duration_s,
       s.pay_within_s, s.opens_at_ms, s.closes_at_ms, s.revision, s.applied_revision,
       p.limit_per_buyer, p.initial, p.restocked, p.lowered, p.reserved, p.sold, p.dead,
       p.version AS pool_version, k.sku_id, k.title AS sku_title, k.price AS list_price,
       k.currency, d.product_id, d.title AS product_title,
       coalesce((SELECT sum(r.units) FROM stock_requests r
                 WHERE r.sale_id = s.sale_id AND r.status = 'pending'), 0)::integer AS lowering
FROM sales s JOIN pools p ON p.pool_id = s.sale_id JOIN skus k USING (sku_id)
     JOIN products d USING (product_id)
WHERE s.sale_id = ANY($1::bigint[]) ORDER BY s.sale_id DESC

-- name: count_sales
SELECT count(*) FROM sales WHERE show_id = $1

-- name: sale_ids
SELECT sale_id FROM sales WHERE show_id = $1

-- name: lock_pool
SELECT pool_id FROM pools WHERE pool_id = $1 AND show_id = $2 FOR NO KEY UPDATE

-- name: start
UPDATE sales SET status = $2, opens_at_ms = $3, closes_at_ms = $4, revision = revision + 1
WHERE sale_id = $1

-- name: set_price
UPDATE sales SET price = $2, price_version = price_version + 1, revision = revision + 1
WHERE sale_id = $1 RETURNING price_version

-- name: set_closing
UPDATE sales SET status = 'closing', revision = revision + 1
WHERE sale_id = $1 AND status IN ('scheduled', 'open')

-- name: close_draft
-- A draft was never in Redis, so there is nothing to project either.
UPDATE sales SET status = 'closed', revision = revision + 1, applied_revision = revision + 1,
       closes_at_ms = greatest(closes_at_ms, opens_at_ms + 1)
WHERE sale_id = $1 AND status = 'draft'

-- name: resize_draft
-- Units of a draft; version as for every change of the counters.
UPDATE pools SET initial = initial + $2, version = version + 1
WHERE pool_id = $1 AND initial + $2 BETWEEN 0 AND $3
RETURNING initial

-- name: restock
UPDATE pools SET restocked = restocked + $2, version = version + 1
WHERE pool_id = $1 AND initial::bigint + restocked + $2 <= $3
RETURNING pool_id

-- name: insert_ledger
INSERT INTO stock_ledger (pool_id, reason, units, give_id) VALUES ($1, $2, $3, $4)

-- name: insert_give
INSERT INTO gives (give_id, show_id, pool_id, units, reason) VALUES ($1, $2, $3, $4, 'restock')

-- name: get_request
SELECT act_id, sale_id, kind, units, status FROM stock_requests WHERE act_id = $1

-- name: insert_request
INSERT INTO stock_requests (act_id, show_id, sale_id, kind, units, status)
VALUES ($1, $2, $3, $4, $5, $6)

-- name: lock_request
SELECT status FROM stock_requests WHERE act_id = $1 FOR NO KEY UPDATE

-- name: settle_request
UPDATE stock_requests SET status = $2 WHERE act_id = $1

-- name: pending_requests
SELECT act_id, show_id, sale_id, units FROM stock_requests
WHERE status = 'pending' AND at < now() - make_interval(secs => $1) ORDER BY at LIMIT $2

-- name: unfinished_of_show
SELECT sale_id, status FROM sales WHERE show_id = $1 AND status IN ('draft', 'scheduled', 'open')
ORDER BY sale_id

-- name: sales_to_project
-- In any order, as those that cannot be applied now must not keep the others out.
SELECT sale_id FROM sales WHERE revision > applied_revision AND status <> 'draft'
ORDER BY random() LIMIT $1

-- name: set_applied
UPDATE sales SET applied_revision = greatest(applied_revision, $2) WHERE sale_id = $1

-- name: sales_opening
-- Scheduled sales whose time has come; $1 Redis ms.
SELECT sale_id, show_id FROM sales WHERE status = 'scheduled' AND opens_at_ms <= $1
ORDER BY opens_at_ms LIMIT $2

-- name: set_open
UPDATE sales SET status = 'open', revision = revision + 1
WHERE sale_id = $1 AND status = 'scheduled'

-- name: sales_overdue
-- Sales whose window has ended; $1 Redis ms.
SELECT sale_id, show_id FROM sales
WHERE status IN ('scheduled', 'open') AND closes_at_ms <= $1 ORDER BY closes_at_ms LIMIT $2

-- name: touch_sales_of_sku
-- The sku's own price is part of what viewers see of a sale.
UPDATE sales SET revision = revision + 1 FROM pools
WHERE pool_id = sale_id AND sku_id = $1 AND status IN ('scheduled', 'open')
RETURNING sale_id

-- name: stats
SELECT s.sale_id, count(o.order_id)::bigint AS orders,
       coalesce(sum(o.quantity), 0)::bigint AS units,
       coalesce(sum(o.price * o.quantity), 0)::bigint AS amount
FROM sales s LEFT JOIN orders o
     ON o.pool_id = s.sale_id AND o.status IN ('confirmed', 'paid', 'fulfilled')
WHERE s.show_id = $1 GROUP BY s.sale_id
