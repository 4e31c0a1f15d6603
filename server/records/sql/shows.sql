-- Shows. Every act of a host locks the show's row first, so the acts of one show are serial.

-- name: insert_show
WITH made AS (
    INSERT INTO shows (show_id, host_id, title, cover_url, playback_url, starts_at)
    VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING RETURNING show_id
)
INSERT INTO stock_epochs (show_id) SELECT show_id FROM made

-- name: get_show
SELECT * FROM shows WHERE show_id = $1

-- name: lock_show
-- NO KEY UPDATE: rows that reference the show may be inserted meanwhile.
SELECT * FROM shows WHERE show_id = $1 FOR NO KEY UPDATE

-- name: list_shows
-- $1 host, $2 how many; newest first, without the shadow shows of rehearsals.
SELECT * FROM shows s WHERE host_id = $1
AND NOT EXISTS (SELECT FROM rehearsals WHERE shadow_id = s.show_id)
ORDER BY created_at DESC, show_id LIMIT $2

-- name: update_show
UPDATE shows SET title = $2, cover_url = $3, playback_url = $4, starts_at = $5,
       revision = revision + 1
WHERE show_id = $1

-- name: set_status
UPDATE shows SET status = $2, revision = revision + 1,
       started_at = CASE WHEN $2 = 'live' THEN coalesce(started_at, now()) ELSE started_at END,
       ended_at = CASE WHEN $2 = 'ended' THEN now() ELSE ended_at END
WHERE show_id = $1

-- name: set_pin
UPDATE shows SET pinned_product = nullif($2::bigint, 0), revision = revision + 1
WHERE show_id = $1

-- name: set_chat_rules
UPDATE shows SET slow_mode_s = $2, refused_words = $3, revision = revision + 1
WHERE show_id = $1

-- name: raise_revision
UPDATE shows SET revision = revision + 1 WHERE show_id = $1

-- name: set_applied
UPDATE shows SET applied_revision = greatest(applied_revision, $2) WHERE show_id = $1

-- name: shows_to_project
-- In any order, as those that cannot be applied now must not keep the others out.
SELECT show_id FROM shows WHERE revision > applied_revision ORDER BY random() LIMIT $1

-- name: stock_epoch
SELECT epoch FROM stock_epochs WHERE show_id = $1
