-- Payments and what providers say of them (records/payments.py). Locks: the event's row, the epoch's,
-- the pool's, the order's, and the payment's last, which is also held alone.

-- name: order_to_pay
-- $1 show, $2 order, $3 buyer.
SELECT o.order_id, o.status, o.quantity, o.price, k.currency, p.title AS product, k.title AS sku,
       coalesce(o.pay_by > now(), false) AS in_time
FROM orders o
JOIN pools USING (pool_id)
JOIN skus k USING (sku_id)
JOIN products p USING (product_id)
WHERE o.show_id = $1 AND o.order_id = $2 AND o.buyer = $3

-- name: insert_payment
-- $1 payment, $2 order, $3 provider, $4 amount, $5 currency, $6 show, $7 buyer. Nothing when one is
-- open already.
INSERT INTO payments (payment_id, order_id, provider, amount, currency, show_id, buyer, status)
VALUES ($1, $2, $3, $4, $5, $6, $7, 'created')
ON CONFLICT (order_id, provider) WHERE status = 'created' DO NOTHING

-- name: open_payment
-- $1 order, $2 provider.
SELECT payment_id, order_id, provider, status, amount, currency, pay_url
FROM payments WHERE order_id = $1 AND provider = $2 AND status = 'created'

-- name: set_intent
-- $1 payment, $2 external id, $3 pay URL. An event may have named the external id before.
UPDATE payments SET external_id = coalesce(external_id, $2), pay_url = $3, updated_at = now()
WHERE payment_id = $1

-- name: insert_event
-- $1.. provider, event id, kind, external id, payment, amount, currency, occurred at (ms), payload,
-- seconds until others than the caller may handle it. Who sent it is told that it is safe after
-- this, whatever the server's default is.
INSERT INTO payment_events (provider, event_id, kind, external_id, payment_id, amount, currency,
                            occurred_at, payload, next_attempt_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, to_timestamp($8::bigint / 1000.0), $9,
        now() + make_interval(secs => $10))
ON CONFLICT DO NOTHING
RETURNING set_config('synchronous_commit', 'on', true)

-- name: hold_event
-- $1 provider, $2 event id. Nothing when it is handled, or in hand.
SELECT kind, external_id, payment_id, amount, currency
FROM payment_events WHERE provider = $1 AND event_id = $2 AND handled_at IS NULL
FOR UPDATE SKIP LOCKED

-- name: finish_event
-- $1 provider, $2 event id, $3 what came of it, $4 the payment it was found to be about or NULL.
UPDATE payment_events
SET handled_at = now(), outcome = $3, payment_id = coalesce(payment_id, $4), last_error = ''
WHERE provider = $1 AND event_id = $2

-- name: take_events
-- $1 how many, $2 seconds to the next attempt, doubled from one to the next, $3 at most. One that
-- cannot be handled goes behind the others with each attempt, also when it ends the process.
WITH due AS MATERIALIZED (
    SELECT provider, event_id FROM payment_events
    WHERE handled_at IS NULL AND next_attempt_at <= now()
    ORDER BY next_attempt_at LIMIT $1
    FOR UPDATE SKIP LOCKED
)
UPDATE payment_events e
SET attempts = attempts + 1,
    next_attempt_at = now() + make_interval(secs => least($3, $2 * 2 ^ least(attempts, 20)))
FROM due WHERE (e.provider, e.event_id) = (due.provider, due.event_id)
RETURNING e.provider, e.event_id

-- name: note_event_fault
-- $1 provider, $2 event id, $3 why it could not be handled.
UPDATE payment_events SET last_error = $3
WHERE provider = $1 AND event_id = $2 AND handled_at IS NULL

-- name: events_of_payment
-- $1 payment; oldest first. One that names the provider's id only is known by it until handled.
SELECT e.event_id, e.kind, e.amount, e.currency, e.outcome, e.attempts, e.last_error,
       (extract(epoch FROM e.received_at) * 1000)::bigint AS received_ms,
       coalesce((extract(epoch FROM e.handled_at) * 1000)::bigint, 0) AS handled_ms
FROM payment_events e JOIN payments p ON p.payment_id = $1 AND p.provider = e.provider
WHERE e.payment_id = $1
   OR (e.handled_at IS NULL AND e.payment_id IS NULL AND e.external_id = p.external_id)
ORDER BY e.received_at, e.event_id

-- name: find_payment
-- $1 provider, $2 payment or NULL, $3 external id.
SELECT p.payment_id, p.show_id, p.order_id
FROM payments p
WHERE p.provider = $1
  AND (p.payment_id = $2 OR ($2::uuid IS NULL AND p.external_id = $3))

-- name: hold_standing
-- $1 payment; the rows of its epoch and pool are held.
SELECT p.status AS payment, o.status AS order, p.amount, p.currency,
       p.status = 'refund_requested' AND p.next_attempt_at IS NULL AS refused, p.settled_by_hand,
       EXISTS (SELECT FROM payments other
               WHERE other.order_id = p.order_id AND other.payment_id <> p.payment_id
                 AND other.status IN ('captured', 'retake_pending')) AS paid_otherwise
FROM payments p JOIN orders o USING (order_id)
WHERE p.payment_id = $1
FOR NO KEY UPDATE OF o, p

-- name: set_status
-- $1 payment, $2 status, $3 reason ('': as it was), $4 external id that the event named: what later
-- events name, while the one of the intent may be of what led to the payment (a checkout session).
-- Attempts of a refund count on: it may fail later, and an old one must not pass for a new one.
UPDATE payments
SET status = $2, reason = coalesce(nullif($3, ''), reason),
    external_id = coalesce(nullif($4, ''), external_id), last_error = '', updated_at = now(),
    attempts = CASE WHEN $2 = 'refunded' THEN attempts ELSE 0 END,
    next_attempt_at = CASE WHEN $2 IN ('retake_pending', 'refund_requested') THEN now() END
WHERE payment_id = $1

-- name: request_refund
-- $1 order, $2 reason.
UPDATE payments
SET status = 'refund_requested', reason = $2, attempts = 0, next_attempt_at = now(),
    updated_at = now()
WHERE order_id = $1 AND status = 'captured'
RETURNING payment_id

-- name: due_retakes
-- $1 how many.
SELECT show_id, payment_id FROM payments
WHERE status = 'retake_pending' AND next_attempt_at <= now()
ORDER BY next_attempt_at LIMIT $1

-- name: hold_retake
-- $1 payment, $2 attempts after which it is overdue. Nothing when it does not wait, or is in hand.
-- `given`: Redis has the units that came back when the order expired.
SELECT p.show_id, o.pool_id, o.buyer, o.quantity, o.price, o.price_version,
       CASE WHEN g.forgiven THEN o.quantity ELSE 0 END AS counted,
       g.applied_at IS NOT NULL AS given,
       p.attempts >= $2 AS overdue
FROM payments p
JOIN orders o USING (order_id)
JOIN gives g ON g.give_id = 'expired:' || o.order_id
WHERE p.payment_id = $1 AND p.status = 'retake_pending'
FOR UPDATE OF p SKIP LOCKED

-- name: postpone
-- $1 payment, $2 seconds, $3 what went wrong.
UPDATE payments
SET attempts = attempts + 1, next_attempt_at = now() + make_interval(secs => $2), last_error = $3
WHERE payment_id = $1

-- name: take_refunds
-- $1 how many, $2 seconds to the second attempt, $3 at most. Whoever gets a row has until the next
-- attempt is due to ask the provider, without holding anything.
WITH due AS MATERIALIZED (
    SELECT payment_id FROM payments
    WHERE status = 'refund_requested' AND next_attempt_at <= now()
    ORDER BY next_attempt_at LIMIT $1
    FOR UPDATE SKIP LOCKED
)
UPDATE payments p
SET attempts = attempts + 1, updated_at = now(),
    next_attempt_at = now() + make_interval(secs => least($3, $2 * 2 ^ least(attempts, 20)))
FROM due WHERE p.payment_id = due.payment_id
RETURNING p.payment_id, p.provider, coalesce(p.external_id, '') AS external_id, p.amount,
          p.currency, p.attempts AS attempt

-- name: start_attempt
-- $1 payment, $2 attempt, $3 seconds that a question to the provider takes at most. Nothing when
-- the attempt is not the last one, or nobody is to ask any more.
UPDATE payments
SET updated_at = now(),
    next_attempt_at = greatest(next_attempt_at, now() + make_interval(secs => $3))
WHERE payment_id = $1 AND status = 'refund_requested' AND attempts = $2
  AND next_attempt_at IS NOT NULL
RETURNING payment_id

-- name: note_attempt
-- $1 payment, $2 attempt, $3 what went wrong.
UPDATE payments SET last_error = $3
WHERE payment_id = $1 AND status = 'refund_requested' AND attempts = $2

-- name: stop_refund
-- $1 payment, $2 attempt, $3 why its provider refuses. Nobody asks again by himself.
UPDATE payments SET last_error = $3, next_attempt_at = NULL, updated_at = now()
WHERE payment_id = $1 AND status = 'refund_requested' AND attempts = $2

-- name: fail_refund
-- $1 payment, held, $2 what to say of it. The attempt under way, if any, is void.
UPDATE payments
SET status = 'refund_requested', reason = 'refund_failed', attempts = attempts + 1,
    last_error = $2, next_attempt_at = NULL, updated_at = now()
WHERE payment_id = $1

-- name: set_refunded_twice
-- $1 payment, held.
UPDATE payments SET refunded_twice = true, updated_at = now() WHERE payment_id = $1

-- name: hold_refund
-- $1 payment, $2 seconds that a question to the provider takes at most. Whoever has it in hand has
-- put its next attempt off (take_refunds).
SELECT status = 'refund_requested' AS due,
       coalesce(next_attempt_at > now(), false)
           AND updated_at > now() - make_interval(secs => $2) AS in_hand,
       status = 'refund_requested' AND next_attempt_at IS NULL AS refused,
       refunded_twice
FROM payments WHERE payment_id = $1
FOR NO KEY UPDATE

-- name: refund_again
-- $1 payment, held. A new attempt: what a late answer to the last one says does not stop it.
UPDATE payments SET attempts = attempts + 1, next_attempt_at = now() WHERE payment_id = $1

-- name: settle_by_hand
-- $1 payment, held.
UPDATE payments
SET status = 'refunded', settled_by_hand = true, refunded_twice = false, next_attempt_at = NULL,
    last_error = '', updated_at = now()
WHERE payment_id = $1

-- name: set_refunded
-- $1 payment. True when it was settled by hand meanwhile.
UPDATE payments
SET status = 'refunded', refunded_twice = settled_by_hand, next_attempt_at = NULL, last_error = '',
    updated_at = now()
WHERE payment_id = $1 AND (status = 'refund_requested' OR settled_by_hand)
RETURNING refunded_twice

-- name: list_payments
-- $1 show or NULL, $2 only the unfinished, $3 only those that wait for an operator, $4 payment or
-- NULL, $5 how many; newest first. By its values the planner takes payments_listed,
-- payments_unfinished or the primary key.
SELECT payment_id, show_id, order_id, buyer, provider, coalesce(external_id, '') AS external_id,
       amount, currency, status, reason, attempts, last_error, settled_by_hand,
       refunded_twice, status = 'refund_requested' AND next_attempt_at IS NULL AS refused,
       (extract(epoch FROM created_at) * 1000)::bigint AS created_ms,
       (extract(epoch FROM updated_at) * 1000)::bigint AS updated_ms
FROM payments
WHERE ($1::text IS NULL OR show_id = $1)
  AND (NOT $2::bool OR status IN ('retake_pending', 'refund_requested') OR refunded_twice)
  AND (NOT $3::bool OR status = 'refund_requested' AND next_attempt_at IS NULL)
  AND ($4::uuid IS NULL OR payment_id = $4)
ORDER BY payment_id DESC LIMIT $5

-- name: acts_on_payment
-- $1 show, $2 payment as text: what operators did with it, oldest first.
SELECT action, actor, detail->>'note' AS note, (extract(epoch FROM at) * 1000)::bigint AS at_ms
FROM host_acts
WHERE show_id = $1 AND action IN ('refund_again', 'refunded_by_hand') AND detail->>'payment' = $2
ORDER BY at, act_id

-- name: count_unfinished
SELECT count(*) FILTER (WHERE status = 'retake_pending') AS retake_pending,
       count(*) FILTER (WHERE status = 'refund_requested' AND next_attempt_at IS NOT NULL)
           AS refund_requested,
       count(*) FILTER (WHERE status = 'refund_requested' AND next_attempt_at IS NULL)
           AS refund_refused,
       (SELECT count(*) FROM payments WHERE refunded_twice) AS refunded_twice,
       (SELECT count(*) FROM payment_events WHERE handled_at IS NULL) AS events
FROM payments WHERE status IN ('retake_pending', 'refund_requested')

-- name: late_payments
-- $1 pool, $2 payments that re-takes are for. Held, so that nobody else decides about them.
SELECT p.payment_id, p.order_id, o.buyer, o.quantity,
       CASE WHEN g.forgiven THEN o.quantity ELSE 0 END AS counted,
       p.status = 'retake_pending' AND o.status = 'expired' AS waits
FROM payments p
JOIN orders o USING (order_id)
JOIN gives g ON g.give_id = 'expired:' || o.order_id
WHERE o.pool_id = $1 AND p.payment_id = ANY($2::uuid[])
ORDER BY p.payment_id
FOR UPDATE OF p

-- name: insert_retakes
-- $1 epoch, $2.. pool, seq, payment, order, quantity, units, reason. The payments follow, where
-- they still wait.
WITH retake AS (
    INSERT INTO retakes (epoch, pool_id, seq, payment_id, order_id, quantity, units, reason)
    SELECT $1, * FROM unnest($2::bigint[], $3::bigint[], $4::uuid[], $5::bigint[], $6::int[],
                             $7::int[], $8::text[])
    RETURNING *
)
UPDATE payments p
SET status = CASE WHEN r.units > 0 THEN 'captured' ELSE 'refund_requested' END,
    reason = r.reason, attempts = 0, last_error = '', updated_at = now(),
    next_attempt_at = CASE WHEN r.units = 0 THEN now() END
FROM retake r WHERE p.payment_id = r.payment_id AND p.status = 'retake_pending'

-- name: give_back_retakes
-- $1 show, $2 epoch, $3.. pool, seq, units, buyer, forgiven. Units that the pool has and the payment
-- could not use; the claim's state stays as it is.
WITH give AS (
    INSERT INTO gives (show_id, give_id, pool_id, units, buyer, reason, forgiven)
    SELECT $1, format('retake:%s:%s:%s', t.pool, $2::int, t.seq), t.pool, t.units, t.buyer,
           'released_by_incident', t.forgiven
    FROM unnest($3::bigint[], $4::bigint[], $5::int[], $6::text[], $7::bool[])
         AS t (pool, seq, units, buyer, forgiven)
    RETURNING *
)
INSERT INTO stock_ledger (pool_id, reason, units, epoch, give_id)
SELECT pool_id, reason, units, $2, give_id FROM give

-- name: refund_dead_retakes
-- $1 payments whose re-takes became dead letters: their units wait for an operator, they do not.
UPDATE payments
SET status = 'refund_requested', reason = 'dead_letter', attempts = 0, next_attempt_at = now(),
    updated_at = now()
WHERE payment_id = ANY($1::uuid[]) AND status = 'retake_pending'
