-- What PostgreSQL must keep.

-- name: unsafe_settings
-- Those that are off, of the settings without which a commit is no promise.
SELECT name FROM pg_settings
WHERE name IN ('fsync', 'full_page_writes', 'synchronous_commit') AND setting = 'off'
ORDER BY name
