-- How people read orders: ids first, each list by an index that has it in order, then the rows.

-- name: order_ids
-- $1 show, $2 statuses, $3 after this order id, $4 limit. The first ones of every status, which
-- orders_by_status has in order: no more are read, however many there are of other statuses or shows.
-- Ranges, not equal signs: these would let the planner walk the primary key, past everybody's orders.
SELECT found.order_id
FROM unnest($2::text[]) AS wanted (status),
     LATERAL (SELECT order_id FROM orders o
              WHERE (o.show_id, o.status, o.order_id) > ($1, wanted.status, $3)
                AND (o.show_id, o.status) <= ($1, wanted.status)
              ORDER BY o.show_id, o.status, o.order_id LIMIT $4) AS found
ORDER BY found.order_id LIMIT $4

-- name: order_ids_before
-- $1 show, $2 statuses, $3 before this order id, $4 limit. As `order_ids`, from the other end.
SELECT found.order_id
FROM unnest($2::text[]) AS wanted (status),
     LATERAL (SELECT order_id FROM orders o
              WHERE (o.show_id, o.status, o.order_id) < ($1, wanted.status, $3)
                AND (o.show_id, o.status) >= ($1, wanted.status)
              ORDER BY o.show_id DESC, o.status DESC, o.order_id DESC LIMIT $4) AS found
ORDER BY found.order_id DESC LIMIT $4

-- name: order_ids_of_sale
-- $1 sale, $2 statuses, $3 after this order id, $4 limit. As `order_ids`, with orders_by_sale; of
-- which show the sale is, orders_by_id checks. Not by (epoch, seq): a dead letter that is redriven
-- has an old one and a new id.
SELECT found.order_id
FROM unnest($2::text[]) AS wanted (status),
     LATERAL (SELECT order_id FROM orders o
              WHERE (o.status, o.pool_id, o.order_id) > (wanted.status, $1, $3)
                AND (o.status, o.pool_id) <= (wanted.status, $1)
              ORDER BY o.status, o.pool_id, o.order_id LIMIT $4) AS found
ORDER BY found.order_id LIMIT $4

-- name: order_ids_of_sale_before
-- $1 sale, $2 statuses, $3 before this order id, $4 limit. From the other end.
SELECT found.order_id
FROM unnest($2::text[]) AS wanted (status),
     LATERAL (SELECT order_id FROM orders o
              WHERE (o.status, o.pool_id, o.order_id) < (wanted.status, $1, $3)
                AND (o.status, o.pool_id) >= (wanted.status, $1)
              ORDER BY o.status DESC, o.pool_id DESC, o.order_id DESC LIMIT $4) AS found
ORDER BY found.order_id DESC LIMIT $4

-- name: order_ids_of_buyer
-- $1 show, $2 buyer, $3 sale or NULL, $4 status or NULL, $5 an order id, $6 whether those before it
-- (else after it) are wanted, $7 limit: the nearest. Apart from `order_ids`: a plan for any
-- parameters would read the orders of everybody.
SELECT order_id FROM orders
WHERE show_id = $1 AND buyer = $2 AND ($3::bigint IS NULL OR pool_id = $3)
  AND ($4::text IS NULL OR status = $4)
  AND CASE WHEN $6::bool THEN order_id < $5 ELSE order_id > $5 END
ORDER BY abs(order_id - $5) LIMIT $7

-- name: newest_ids_of_buyer
-- $1 show, $2 buyer, $3 how many.
SELECT order_id FROM orders WHERE show_id = $1 AND buyer = $2 ORDER BY order_id DESC LIMIT $3

-- name: orders_by_id
-- $1 show, $2 order ids.
SELECT o.order_id, o.pool_id AS sale_id, k.product_id, k.sku_id, p.title AS product,
       k.title AS sku, o.buyer, o.claim_id, o.quantity, o.price, k.currency, o.status,
       (extract(epoch FROM o.confirmed_at) * 1000)::bigint AS confirmed_at,
       coalesce((extract(epoch FROM o.pay_by) * 1000)::bigint, 0) AS pay_by
FROM orders o
JOIN pools USING (pool_id)
JOIN skus k USING (sku_id)
JOIN products p USING (product_id)
WHERE o.show_id = $1 AND o.order_id = ANY($2::bigint[])
ORDER BY o.order_id
