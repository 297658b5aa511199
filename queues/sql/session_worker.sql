-- The worker's name for a caller that gives none: its database session's process and start.
CREATE OR REPLACE FUNCTION session_worker() RETURNS text
LANGUAGE sql STABLE AS $$
SELECT concat_ws('-', 'anonymous', pg_backend_pid(),
    (SELECT to_char(a.backend_start AT TIME ZONE 'UTC', 'YYYYMMDDHH24MISSMS')
       FROM pg_stat_get_activity(pg_backend_pid()) a))
$$;
