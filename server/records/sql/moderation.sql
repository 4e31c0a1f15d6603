-- Mutes and bans: one row per show, user and kind.

-- name: upsert
-- $5: end, null for ever.
INSERT INTO moderations (show_id, user_id, kind, by_user, until) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (show_id, user_id, kind) DO UPDATE
SET by_user = excluded.by_user, until = excluded.until, at = now()

-- name: delete
DELETE FROM moderations WHERE show_id = $1 AND user_id = $2 AND kind = $3

-- name: list
-- The hour is room for the difference between this clock and Redis time, which decides.
SELECT user_id, kind, until, at FROM moderations
WHERE show_id = $1 AND (until IS NULL OR until > now() - interval '1 hour') ORDER BY at DESC
