-- Products and their skus.

-- name: count_products
SELECT count(*) FROM products WHERE show_id = $1

-- name: insert_product
INSERT INTO products (show_id, title, image_url, cues, position)
SELECT $1, $2, $3, $4, coalesce(max(position), 0) + 1 FROM products WHERE show_id = $1
RETURNING product_id

-- name: get_product
SELECT product_id, title, image_url, position, listed, cues FROM products
WHERE show_id = $1 AND product_id = $2

-- name: list_products
-- The run-list first, in the host's order; then what is not listed.
SELECT product_id, title, image_url, position, listed, cues FROM products
WHERE show_id = $1 ORDER BY listed DESC, position, product_id

-- name: update_product
UPDATE products SET title = $3, image_url = $4, cues = $5 WHERE show_id = $1 AND product_id = $2

-- name: set_run_list
-- $2: product ids in the host's order; all others of the show leave the list.
UPDATE products AS p
SET listed = array_position($2::bigint[], p.product_id) IS NOT NULL,
    position = coalesce(array_position($2::bigint[], p.product_id), p.position)
WHERE p.show_id = $1

-- name: count_skus
-- Of the show, and of one product of it.
SELECT count(*), count(*) FILTER (WHERE product_id = $2) FROM skus WHERE show_id = $1

-- name: insert_sku
INSERT INTO skus (show_id, product_id, title, price, currency, inventory)
VALUES ($1, $2, $3, $4, $5, $6) RETURNING sku_id

-- name: get_sku
SELECT sku_id, product_id, title, price, currency, inventory, allotted FROM skus
WHERE show_id = $1 AND sku_id = $2

-- name: list_skus
SELECT sku_id, product_id, title, price, currency, inventory, allotted FROM skus
WHERE show_id = $1 ORDER BY product_id, sku_id

-- name: update_sku
-- No row when the new inventory would not cover what is allotted to sales.
UPDATE skus SET title = $3, price = $4, inventory = $5
WHERE show_id = $1 AND sku_id = $2 AND allotted <= $5
RETURNING sku_id

-- name: allot
-- Units of the inventory for a sale; no row when there are not enough (or, for $3 < 0, back).
UPDATE skus SET allotted = allotted + $3
WHERE show_id = $1 AND sku_id = $2 AND allotted + $3 BETWEEN 0 AND inventory
RETURNING sku_id
