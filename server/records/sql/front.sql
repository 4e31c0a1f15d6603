-- What the front page shows.

-- name: live_shows
-- $1 how many; those that began last come first.
SELECT show_id, title FROM shows WHERE status IN ('live', 'paused')
ORDER BY started_at DESC NULLS LAST, show_id LIMIT $1
