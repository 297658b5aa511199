-- Registers one start of a worker process that will heartbeat. The id must be new for every start.
-- p_queues null: it claims from all. Error 23505 for an id that is taken.
CREATE OR REPLACE FUNCTION register_worker(
    p_worker text, p_queues text[] DEFAULT NULL, p_concurrency integer DEFAULT 1, p_host text DEFAULT '',
    p_pid integer DEFAULT NULL, p_version text DEFAULT '', p_metadata jsonb DEFAULT '{}'
) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
INSERT INTO workers (id, kind, queues, concurrency, host, pid, version, metadata, heartbeat_at)
VALUES (p_worker, 'process', p_queues, p_concurrency, p_host, p_pid, p_version, p_metadata, clock_timestamp())
$$;
