-- Dead letters: takes that could not be booked, and what an operator decides about them
-- (records/dead_letters.py). Locks in the order of the other statements that write a pool's rows:
-- the epoch's row, the pool's, the letter's.

-- name: list_letters
-- $1 show, $2 status or NULL, $3 before this letter (NULL: from the newest), $4 how many.
SELECT dead_letter_id, show_id, pool_id, epoch, seq, entry_id, units, payload, error, status, at
FROM dead_letters
WHERE show_id = $1 AND ($2::text IS NULL OR status = $2)
  AND ($3::bigint IS NULL OR dead_letter_id < $3)
ORDER BY dead_letter_id DESC
LIMIT $4

-- name: get_letter
SELECT dead_letter_id, show_id, pool_id, epoch, seq, entry_id, units, payload, error, status, at
FROM dead_letters WHERE show_id = $1 AND dead_letter_id = $2

-- name: hold_epoch
-- $1 show. A rebuild of the stock waits for us, or we for it. Buyers are told after the commit, so
-- it must be on disk by then, whatever the server's default is.
SELECT halted_by, set_config('synchronous_commit', 'on', true)
FROM stock_epochs WHERE show_id = $1 FOR SHARE

-- name: hold_pool
-- $1 show, $2 pool.
SELECT p.epoch, p.taken_seq, p.limit_per_buyer, coalesce(s.pay_within_s, 0) AS pay_within_s,
       p.initial + p.restocked - p.lowered - p.reserved - p.sold - p.dead AS room
FROM pools p LEFT JOIN sales s ON s.sale_id = p.pool_id
WHERE p.show_id = $1 AND p.pool_id = $2
FOR NO KEY UPDATE OF p

-- name: hold_letter
SELECT status FROM dead_letters WHERE dead_letter_id = $1 FOR UPDATE

-- name: set_status
-- $1 letter, $2 status, $3 whether Redis has to be told and no give or order's step does it.
UPDATE dead_letters SET status = $2, untold_since = CASE WHEN $3::bool THEN clock_timestamp() END
WHERE dead_letter_id = $1

-- name: untold_letters
-- $1 how many; in any order, as shows that are halted must not keep the others out.
SELECT show_id, dead_letter_id FROM dead_letters WHERE untold_since IS NOT NULL
ORDER BY random() LIMIT $1

-- name: is_untold
SELECT untold_since IS NOT NULL FROM dead_letters WHERE show_id = $1 AND dead_letter_id = $2

-- name: mark_told
UPDATE dead_letters SET untold_since = NULL WHERE dead_letter_id = $1

-- name: units_bought
SELECT units FROM pool_buyers WHERE pool_id = $1 AND buyer = $2

-- name: unbury
-- $1 pool, $2 units no longer dead, $3.. units more reserved, sold, lowered.
UPDATE pools SET dead = dead - $2, reserved = reserved + $3, sold = sold + $4,
       lowered = lowered + $5, version = version + 1
WHERE pool_id = $1
RETURNING pool_id, reserved, sold, dead, version

-- name: counters
SELECT pool_id, reserved, sold, dead, version FROM pools WHERE pool_id = $1

-- name: note_units
-- $1 pool, $2 reason, $3 units (fewer dead ones are negative), $4 epoch, $5 seq.
INSERT INTO stock_ledger (pool_id, reason, units, epoch, seq_first, seq_last)
VALUES ($1, $2, $3, $4, $5, $5)

-- name: insert_order
-- $1 show, $2 pool, $3 epoch, $4 seq, $5 buyer, $6 claim, $7 quantity, $8 price, $9 price version,
-- $10 seconds to pay, 0 for none: they count from now. With its step, which Redis has to be told.
WITH made AS (
    INSERT INTO orders (show_id, pool_id, epoch, seq, buyer, claim_id, quantity, price,
                        price_version, confirmed_at, pay_by)
    SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, at,
           CASE WHEN $10::int > 0 THEN at + make_interval(secs => $10::int) END
    FROM date_trunc('milliseconds', clock_timestamp()) AS at
    RETURNING order_id, show_id, pool_id, confirmed_at
), step AS (
    INSERT INTO order_moves (order_id, show_id, pool_id, status_from, status_to, reason, actor, at)
    SELECT order_id, show_id, pool_id, 'dead', 'confirmed', 'redrive', $11, confirmed_at FROM made
)
SELECT order_id FROM made

-- name: add_units
-- $1 pool, $2 buyer, $3 units more.
INSERT INTO pool_buyers AS b (pool_id, buyer, units) VALUES ($1, $2, $3)
ON CONFLICT (pool_id, buyer) DO UPDATE SET units = b.units + EXCLUDED.units

-- name: give
-- $1 give, $2 show, $3 pool, $4 units, $5 buyer or NULL, $6 claim or NULL, $7 payment or NULL: a
-- re-take counts anew only where its order's units had stopped counting, and until the stock is
-- rebuilt; $8 epoch.
WITH give AS (
    INSERT INTO gives (give_id, show_id, pool_id, units, buyer, claim_id, reason, forgiven)
    SELECT $1, $2, $3, $4, $5, $6, 'released_by_incident', $7::uuid IS NULL OR EXISTS (
        SELECT FROM payments p JOIN gives g ON g.give_id = 'expired:' || p.order_id
        JOIN stock_epochs e ON e.show_id = $2 AND e.epoch = $8
        WHERE p.payment_id = $7 AND g.forgiven)
    RETURNING *
)
INSERT INTO stock_ledger (pool_id, reason, units, epoch, give_id)
SELECT pool_id, reason, units, $8, give_id FROM give
