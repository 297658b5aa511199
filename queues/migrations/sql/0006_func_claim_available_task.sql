-- Gives worker_id_param the oldest due task of queue `gpu` whose predecessors are complete, or no row,
-- in the words of the GPU workers. An unknown worker is registered; a caller that gives none is named
-- after its session.
CREATE OR REPLACE FUNCTION func_claim_available_task(worker_id_param text)
RETURNS TABLE (id uuid, status text, attempts integer, worker_id text, generation_started_at timestamptz,
               task_data jsonb, created_at timestamptz, task_type text)
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
SELECT c.id, status_to_word(c.status), c.attempts, c.worker_id, c.started_at, c.payload, c.created_at, c.type
  FROM claim_from_queue(coalesce(nullif(btrim(worker_id_param), ''), session_worker()), 'gpu', 1, caller_projects()) c
$$;
