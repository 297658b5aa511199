-- Gives the oldest due task of queue `default`, or no row. For callers that give no worker: the task
-- is held by an ephemeral worker named after the database session, and returns by timeout alone.
CREATE OR REPLACE FUNCTION claim_next_task() RETURNS SETOF tasks
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
SELECT * FROM claim_from_queue(session_worker(), 'default', 1, caller_projects())
$$;
