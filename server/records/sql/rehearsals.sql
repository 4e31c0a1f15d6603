-- Rehearsals. At most one of the installation is preparing or running (a unique index).

-- name: insert
-- No row when one is under way.
INSERT INTO rehearsals (show_id, sale_id, shadow_id, request_id, asked)
VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING RETURNING rehearsal_id

-- name: by_id
SELECT rehearsal_id, show_id, sale_id, shadow_id, request_id, asked, status, progress,
       coalesce(summary->>'verdict', '') AS verdict, reason, created_at, ended_at
FROM rehearsals WHERE show_id = $1 AND rehearsal_id = $2

-- name: by_request
SELECT rehearsal_id, show_id, sale_id, shadow_id, request_id, asked, status, progress,
       coalesce(summary->>'verdict', '') AS verdict, reason, created_at, ended_at
FROM rehearsals WHERE show_id = $1 AND request_id = $2

-- name: newest
SELECT rehearsal_id, show_id, sale_id, shadow_id, request_id, asked, status, progress,
       coalesce(summary->>'verdict', '') AS verdict, reason, created_at, ended_at
FROM rehearsals WHERE show_id = $1 ORDER BY rehearsal_id DESC LIMIT $2

-- name: summary
SELECT summary FROM rehearsals WHERE rehearsal_id = $1

-- name: report
SELECT report FROM rehearsals WHERE show_id = $1 AND rehearsal_id = $2

-- name: beat
-- No row when it is over already, else whether the host has asked to stop.
UPDATE rehearsals SET status = 'running', seen_at = now(), progress = $2
WHERE rehearsal_id = $1 AND status IN ('preparing', 'running')
RETURNING stop_asked

-- name: ask_to_stop
UPDATE rehearsals SET stop_asked = true
WHERE rehearsal_id = $1 AND status IN ('preparing', 'running')

-- name: finish
UPDATE rehearsals
SET status = $2, reason = $3, summary = $4, report = $5, ended_at = now()
WHERE rehearsal_id = $1 AND status IN ('preparing', 'running')

-- name: forget_old
-- What the load test found, of all but the newest $2 of the show that rehearsal $1 is of. Rows stay:
-- they tell shadow shows from real ones.
UPDATE rehearsals SET summary = NULL, report = NULL
WHERE (summary IS NOT NULL OR report IS NOT NULL) AND rehearsal_id <= (
    SELECT older.rehearsal_id FROM rehearsals this JOIN rehearsals older USING (show_id)
    WHERE this.rehearsal_id = $1 ORDER BY older.rehearsal_id DESC OFFSET $2 LIMIT 1
) AND show_id = (SELECT show_id FROM rehearsals WHERE rehearsal_id = $1)

-- name: give_up_lost
-- Of processes that are gone: nobody has said for $1 seconds that it runs.
UPDATE rehearsals SET status = 'failed', reason = 'lost', ended_at = now()
WHERE status IN ('preparing', 'running') AND seen_at < now() - make_interval(secs => $1)

-- name: show_on
-- A real show that is live or paused: $1 itself if it is one. No row when there is none.
SELECT show_id FROM shows s WHERE status IN ('live', 'paused')
AND NOT EXISTS (SELECT FROM rehearsals WHERE shadow_id = s.show_id)
ORDER BY show_id <> $1, started_at DESC NULLS LAST, show_id LIMIT 1

-- name: left_open
-- Shadow shows (and their hosts) of rehearsals that are over.
SELECT s.show_id, s.host_id FROM rehearsals r JOIN shows s ON s.show_id = r.shadow_id
WHERE r.ended_at IS NOT NULL AND s.status <> 'ended'
