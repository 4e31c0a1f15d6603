-- Holds that were lost for good (records/late_releases.py).

-- name: insert
-- Parallel arrays: show, buyer, claim, pool, quantity, price, price version, epoch, seq, refusal.
INSERT INTO late_releases (show_id, buyer, claim_id, pool_id, quantity, price, price_version, epoch,
                           seq, refusal)
SELECT * FROM unnest($1::text[], $2::text[], $3::uuid[], $4::bigint[], $5::int[], $6::bigint[],
                     $7::int[], $8::int[], $9::bigint[], $10::text[])
ON CONFLICT DO NOTHING
