-- What visitors need before they are viewers of a show.

-- name: live_shows
-- $1 how many; those that began last come first. Shadow shows are nobody's to see.
SELECT show_id, title, cover_url FROM shows s WHERE status IN ('live', 'paused')
AND NOT EXISTS (SELECT FROM rehearsals WHERE shadow_id = s.show_id)
ORDER BY started_at DESC NULLS LAST, show_id LIMIT $1

-- name: known_shows
-- $1 show ids, $2 days: those that there are, and whether they ended so many days ago.
SELECT show_id, coalesce(ended_at < now() - make_interval(days => $2), false) AS is_over
FROM shows WHERE show_id = ANY($1::text[])
