-- The audit log of hosts and moderators.

-- name: insert_act
INSERT INTO host_acts (act_id, show_id, actor, role, action, detail)
VALUES ($1, $2, $3, $4, $5, $6::jsonb)

-- name: get_act
SELECT action, detail FROM host_acts WHERE act_id = $1

-- name: list_acts
-- $1 show, $2 only older than this act (null: from the newest), $3 how many.
SELECT a.act_id, a.actor, a.role, a.action, a.detail, a.at, coalesce(r.status, '') AS outcome
FROM host_acts a LEFT JOIN stock_requests r USING (act_id)
WHERE a.show_id = $1 AND ($2::uuid IS NULL OR (a.at, a.act_id) <
      (SELECT b.at, b.act_id FROM host_acts b WHERE b.act_id = $2 AND b.show_id = $1))
ORDER BY a.at DESC, a.act_id DESC LIMIT $3
