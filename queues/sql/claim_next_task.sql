-- Gives the oldest due task of queue `default`, or no row. For callers that give no worker: the task
-- is held by an ephemeral worker named after the database session, and returns by timeout alone.
CREATE OR REPLACE FUNCTION claim_next_task() RETURNS SETOF tasks
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
SELECT * FROM claim_tasks(
    'anonymous-' || pg_backend_pid() || '-'
    || (SELECT to_char(a.backend_start AT TIME ZONE 'UTC', 'YYYYMMDDHH24MISSMS')
          FROM pg_stat_get_activity(pg_backend_pid()) a),
    ARRAY['default'], 1)
$$;
