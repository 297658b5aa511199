-- Says that p_worker lives, and answers what it should know: its status (draining: claim no more;
-- gone: others have its tasks, start again under a new id) and, of the tasks that it names with
-- their leases, those it no longer holds (cancelled, rescued, settled by another).
-- p_elapsed: seconds since each task's handler began, null for one that waits in the worker's buffer;
-- a timeout runs from the handler's start, so started_at is moved there.
-- p_all: these are all tasks that the worker knows of. What it holds besides, claimed more than ten
-- seconds ago, was claimed by a call whose answer was lost: it goes back, attempt uncharged.
CREATE OR REPLACE FUNCTION heartbeat(
    p_worker text, p_ids uuid[] DEFAULT '{}', p_leases bigint[] DEFAULT '{}',
    p_elapsed double precision[] DEFAULT '{}', p_all boolean DEFAULT false
) RETURNS TABLE (status text, lost uuid[], lost_leases bigint[])
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp SET jit = off AS $$
#variable_conflict use_column
DECLARE
    v_now constant timestamptz := clock_timestamp();  -- before any wait: later claims are not in p_ids
    v_status text;
    v_ids uuid[];
    v_leases bigint[];
BEGIN
    UPDATE workers w
       SET heartbeat_at = CASE WHEN w.status = 'gone' THEN w.heartbeat_at ELSE clock_timestamp() END,
           last_seen_at = CASE WHEN w.status = 'gone' THEN w.last_seen_at ELSE clock_timestamp() END
     WHERE w.id = p_worker RETURNING w.status INTO v_status;
    -- Rows that a handler's own transaction holds are passed over: a heartbeat must never wait.
    UPDATE tasks t SET started_at = clock_timestamp() - make_interval(secs => h.elapsed)
      FROM (SELECT u.id, u.elapsed FROM unnest(p_ids, p_leases, p_elapsed) u(id, lease, elapsed)
              JOIN tasks s ON s.id = u.id
             WHERE s.lease = u.lease AND s.worker_id || '' = p_worker AND s.status || '' = 'processing'
               AND s.started_at < clock_timestamp() - make_interval(secs => u.elapsed + 1)
             ORDER BY s.id FOR NO KEY UPDATE OF s SKIP LOCKED) h
     WHERE t.id = h.id;
    IF p_all THEN
        SELECT array_agg(t.id), array_agg(t.lease) INTO v_ids, v_leases FROM tasks t
         WHERE t.worker_id = p_worker AND t.status = 'processing'
           AND t.started_at < v_now - interval '10 seconds'
           AND NOT EXISTS (SELECT FROM unnest(p_ids, p_leases) h(id, lease) WHERE h.id = t.id AND h.lease = t.lease);
        IF v_ids IS NOT NULL THEN
            PERFORM release_tasks(v_ids, v_leases);
        END IF;
    END IF;
    RETURN QUERY
    SELECT coalesce(v_status, 'gone'), coalesce(array_agg(h.id), '{}'), coalesce(array_agg(h.lease), '{}')
      FROM unnest(p_ids, p_leases) h(id, lease) LEFT JOIN tasks t ON t.id = h.id
     WHERE t.id IS NULL OR t.lease <> h.lease OR t.status <> 'processing';
END
$$;
