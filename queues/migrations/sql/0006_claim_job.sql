-- Gives p_worker_id the oldest due task of queue `jobs`, or no row. An unknown worker is registered; a
-- caller that gives none is named after its session. next_retry_at is null until a first attempt failed.
CREATE OR REPLACE FUNCTION claim_job(p_worker_id text)
RETURNS TABLE (id uuid, tenant_id text, type text, status text, payload jsonb, result jsonb, worker_id text,
               attempts integer, next_retry_at timestamptz, created_at timestamptz, completed_at timestamptz)
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
SELECT c.id, c.tenant_id, c.type, c.status, c.payload, coalesce(c.result, '{}'), c.worker_id, c.attempts,
       CASE WHEN c.attempts > 1 THEN c.run_at END, c.created_at, c.completed_at
  FROM claim_from_queue(coalesce(nullif(btrim(p_worker_id), ''), session_worker()), 'jobs', 1, caller_projects()) c
$$;
