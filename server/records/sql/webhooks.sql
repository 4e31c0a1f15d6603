-- Webhooks: endpoints, the messages made from the outbox, and their deliveries.

-- name: insert_endpoint
INSERT INTO webhook_endpoints (show_id, url, secret, topics) VALUES ($1, $2, $3, $4)
RETURNING endpoint_id

-- name: list_endpoints
-- $1 show, $2 how many. Removed ones too, last.
SELECT e.endpoint_id, e.url, e.topics, e.created_at, e.removed_at, e.removed_by,
       (SELECT count(*) FROM webhook_deliveries d
        WHERE d.endpoint_id = e.endpoint_id AND d.status = 'pending') AS pending,
       (SELECT count(*) FROM webhook_deliveries d
        WHERE d.endpoint_id = e.endpoint_id AND d.status = 'failed') AS failed
FROM webhook_endpoints e
WHERE e.show_id = $1
ORDER BY e.removed_at IS NOT NULL, e.endpoint_id DESC
LIMIT $2

-- name: remove_endpoint
-- $1 show, $2 endpoint, $3 by whom.
UPDATE webhook_endpoints SET removed_at = now(), removed_by = $3
WHERE show_id = $1 AND endpoint_id = $2 AND removed_at IS NULL
RETURNING endpoint_id

-- name: has_endpoint
SELECT endpoint_id FROM webhook_endpoints WHERE show_id = $1 AND endpoint_id = $2

-- name: list_deliveries
-- $1 endpoint, $2 status or NULL, $3 before this delivery (NULL: from the newest), $4 how many.
-- What is pending for an endpoint that was removed will not be sent.
SELECT d.delivery_id, d.message_id, m.show_id, m.topic, m.at, d.attempts, d.http_status,
       d.last_error, d.updated_at,
       CASE WHEN d.status = 'pending' AND e.removed_at IS NOT NULL THEN 'failed' ELSE d.status END
           AS status,
       CASE WHEN d.status = 'pending' AND e.removed_at IS NULL THEN d.next_at END AS next_at
FROM webhook_deliveries d
JOIN webhook_endpoints e USING (endpoint_id)
JOIN webhook_messages m USING (message_id)
WHERE d.endpoint_id = $1 AND ($2::text IS NULL OR d.status = $2)
  AND ($3::bigint IS NULL OR d.delivery_id < $3)
ORDER BY d.delivery_id DESC
LIMIT $4

-- name: resend
-- $1 endpoint, $2 delivery or NULL for all that failed. One that is in hand is being sent anyway.
UPDATE webhook_deliveries d
SET status = 'pending', schedule = 0, next_at = now(), updated_at = now()
FROM webhook_endpoints e
WHERE e.endpoint_id = d.endpoint_id AND e.removed_at IS NULL AND d.endpoint_id = $1
  AND CASE WHEN $2::bigint IS NULL THEN d.status = 'failed' ELSE d.delivery_id = $2 END
  AND NOT d.in_hand
RETURNING d.delivery_id

-- name: known_delivery
-- $1 show, $2 endpoint, $3 delivery. Whether it can be sent again.
SELECT e.removed_at IS NULL FROM webhook_deliveries d JOIN webhook_endpoints e USING (endpoint_id)
WHERE e.show_id = $1 AND d.endpoint_id = $2 AND d.delivery_id = $3

-- name: has_work
-- Whether anybody is to be told anything, now or later. Asked all the time, so it must be cheap.
SELECT EXISTS (SELECT FROM outbox) OR EXISTS (
    SELECT FROM webhook_endpoints WHERE removed_at IS NULL)

-- --- Messages --------------------------------------------------------------------------------

-- name: make_messages
-- $1 how many rows of the outbox, $2 {status: rank}. Oldest rows first; rows that another worker
-- has are left to it. A row is gone when its messages are there: all in one statement. Orders
-- redriven from dead letters are in a range of takes too, but have a step of their own.
WITH due AS (
    DELETE FROM outbox WHERE message_id IN (
        SELECT message_id FROM outbox ORDER BY message_id LIMIT $1 FOR UPDATE SKIP LOCKED
    )
    RETURNING show_id, topic, payload
), ranges AS (
    SELECT show_id, r.* FROM due,
           jsonb_to_record(payload) AS r (pool bigint, epoch int, seq_first bigint, seq_last bigint)
    WHERE topic = 'taken'
), steps AS (
    SELECT o.order_id, 'confirmed' AS status, '' AS reason, o.confirmed_at AS at
    FROM ranges r JOIN orders o ON o.pool_id = r.pool AND o.epoch = r.epoch
         AND o.seq BETWEEN r.seq_first AND r.seq_last
    WHERE NOT EXISTS (
        SELECT FROM dead_letters d WHERE d.show_id = r.show_id
        AND (d.pool_id, d.epoch, d.seq, d.entry_id) = (o.pool_id, o.epoch, o.seq, ''))
    UNION ALL
    SELECT m.order_id, m.status_to, m.reason, m.at
    FROM due CROSS JOIN LATERAL jsonb_array_elements_text(payload -> 'orders') AS moved (order_id)
         JOIN order_moves m ON m.order_id = moved.order_id::bigint
              AND m.status_to = payload ->> 'status'
    WHERE topic = 'moved'
), events AS (
    SELECT o.show_id, 'order.' || s.status AS topic, s.at,
           jsonb_build_object(
               'show', o.show_id, 'order_id', o.order_id, 'status', s.status,
               'rank', ($2::jsonb ->> s.status)::int, 'reason', s.reason, 'sale', o.pool_id,
               'product', p.product_id, 'product_title', p.title, 'sku', k.sku_id,
               'sku_title', k.title, 'buyer', o.buyer, 'claim_id', o.claim_id,
               'quantity', o.quantity, 'price', o.price, 'amount', o.price * o.quantity,
               'currency', k.currency,
               'confirmed_at', (extract(epoch FROM o.confirmed_at) * 1000)::bigint,
               'pay_by', coalesce((extract(epoch FROM o.pay_by) * 1000)::bigint, 0)) AS data
    FROM steps s JOIN orders o USING (order_id) JOIN pools USING (pool_id)
         JOIN skus k USING (sku_id) JOIN products p USING (product_id)
    UNION ALL
    SELECT i.show_id, 'order.released', i.at,
           jsonb_build_object('show', i.show_id, 'sale', i.pool_id, 'buyer', i.buyer,
                              'claim_id', i.claim_id, 'quantity', i.quantity, 'reason', i.reason)
    FROM ranges r JOIN incidents i ON i.pool_id = r.pool AND i.epoch = r.epoch
         AND i.seq BETWEEN r.seq_first AND r.seq_last
    WHERE i.buyer <> ''
    UNION ALL
    SELECT g.show_id, 'order.released', g.created_at,
           jsonb_build_object('show', g.show_id, 'sale', g.pool_id, 'buyer', g.buyer,
                              'claim_id', g.claim_id, 'quantity', g.units, 'reason', 'dead_letter')
    FROM due JOIN gives g ON g.give_id = payload ->> 'give_id'
    WHERE topic = 'released'
), messages AS (
    INSERT INTO webhook_messages (show_id, topic, data, at)
    SELECT e.show_id, e.topic, e.data, e.at FROM events e
    WHERE EXISTS (SELECT FROM webhook_endpoints w WHERE w.show_id = e.show_id
                  AND e.topic = ANY(w.topics) AND w.removed_at IS NULL)
    ORDER BY e.at
    RETURNING message_id, show_id, topic
), deliveries AS (
    INSERT INTO webhook_deliveries (message_id, endpoint_id)
    SELECT m.message_id, w.endpoint_id FROM messages m JOIN webhook_endpoints w USING (show_id)
    WHERE m.topic = ANY(w.topics) AND w.removed_at IS NULL
)
SELECT count(*) FROM due

-- name: note_stock
-- $1 days since the end of a show. One message for every pool whose counters, price or sale have
-- changed since the last one, which is at least a second ago.
WITH wanted AS (
    SELECT DISTINCT e.show_id FROM webhook_endpoints e JOIN shows USING (show_id)
    WHERE e.removed_at IS NULL AND 'stock.changed' = ANY(e.topics)
      AND (shows.ended_at IS NULL OR shows.ended_at > now() - make_interval(days => $1))
), changed AS (
    INSERT INTO stock_notices AS n (pool_id, version, revision)
    SELECT p.pool_id, p.version, s.revision
    FROM wanted JOIN pools p USING (show_id) JOIN sales s ON s.sale_id = p.pool_id
         LEFT JOIN stock_notices told ON told.pool_id = p.pool_id
    WHERE s.status <> 'draft' AND (told.pool_id IS NULL OR (
          (p.version, s.revision) <> (told.version, told.revision)
          AND told.at <= now() - interval '1 second'))
    ON CONFLICT (pool_id) DO UPDATE
    SET version = EXCLUDED.version, revision = EXCLUDED.revision, at = now()
    WHERE (EXCLUDED.version, EXCLUDED.revision) > (n.version, n.revision)
      AND n.at <= now() - interval '1 second'
    RETURNING pool_id
), messages AS (
    INSERT INTO webhook_messages (show_id, topic, data, at)
    SELECT p.show_id, 'stock.changed', jsonb_build_object(
               'show', p.show_id, 'sale', p.pool_id, 'status', s.status, 'sku', p.sku_id,
               'version', p.version, 'revision', s.revision, 'price', s.price,
               'total', p.initial + p.restocked - p.lowered,
               'left', p.initial + p.restocked - p.lowered - p.reserved - p.sold - p.dead,
               'reserved', p.reserved, 'sold', p.sold, 'dead', p.dead), now()
    FROM changed JOIN pools p USING (pool_id) JOIN sales s ON s.sale_id = p.pool_id
    RETURNING message_id, show_id, topic
), deliveries AS (
    INSERT INTO webhook_deliveries (message_id, endpoint_id)
    SELECT m.message_id, w.endpoint_id FROM messages m JOIN webhook_endpoints w USING (show_id)
    WHERE m.topic = ANY(w.topics) AND w.removed_at IS NULL
)
SELECT count(*) FROM changed

-- name: forget_old
-- $1 days, $2 how many messages; their deliveries go with them.
WITH old AS (
    SELECT message_id FROM webhook_messages ORDER BY message_id LIMIT $2
)
DELETE FROM webhook_messages m USING old
WHERE m.message_id = old.message_id AND m.at < now() - make_interval(days => $1)

-- --- Deliveries ------------------------------------------------------------------------------

-- name: endpoints_due
-- $1 endpoints not to be named, $2 how many. In any order, so that none keeps the others out.
SELECT e.endpoint_id FROM webhook_endpoints e
WHERE e.removed_at IS NULL AND e.endpoint_id <> ALL($1::bigint[])
  AND EXISTS (SELECT FROM webhook_deliveries d WHERE d.endpoint_id = e.endpoint_id
              AND d.status = 'pending' AND d.next_at <= now())
ORDER BY random() LIMIT $2

-- name: take_in_hand
-- $1 endpoint, $2 how many, $3 seconds until others may take over.
WITH due AS (
    SELECT delivery_id FROM webhook_deliveries
    WHERE endpoint_id = $1 AND status = 'pending' AND next_at <= now()
    ORDER BY next_at LIMIT $2 FOR UPDATE SKIP LOCKED
)
UPDATE webhook_deliveries d
SET in_hand = true, attempts = d.attempts + 1, schedule = d.schedule + 1, updated_at = now(),
    next_at = now() + make_interval(secs => $3)
FROM due, webhook_messages m, webhook_endpoints e
WHERE d.delivery_id = due.delivery_id AND m.message_id = d.message_id
  AND e.endpoint_id = d.endpoint_id AND e.removed_at IS NULL
RETURNING d.delivery_id, d.endpoint_id, d.attempts, d.schedule, e.url, e.secret, d.message_id,
          m.show_id, m.topic, m.data, m.at

-- name: settle
-- $1.. of each attempt: delivery, its number, new status, HTTP status (0: no answer), error,
-- seconds until the next one. Nothing of a delivery that was taken over meanwhile.
UPDATE webhook_deliveries d
SET status = o.status, in_hand = false, http_status = nullif(o.http_status, 0),
    last_error = o.error, next_at = now() + make_interval(secs => o.wait_s), updated_at = now()
FROM unnest($1::bigint[], $2::int[], $3::text[], $4::int[], $5::text[], $6::float8[])
     AS o (delivery_id, attempts, status, http_status, error, wait_s)
WHERE d.delivery_id = o.delivery_id AND d.attempts = o.attempts

-- name: endpoint_gone
-- $1 endpoint: it answered 410.
UPDATE webhook_endpoints SET removed_at = now(), removed_by = 'gone'
WHERE endpoint_id = $1 AND removed_at IS NULL
RETURNING show_id
