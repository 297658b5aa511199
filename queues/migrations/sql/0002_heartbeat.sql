-- Says that p_worker lives, and answers what it should know: its status (draining: claim no more;
-- gone: others have its tasks, start again under a new id) and, of the tasks that it names with
-- their leases, those it no longer holds (cancelled, rescued, settled by another).
-- p_elapsed: seconds since each task's handler began, null for one that waits in the worker's buffer;
-- a timeout runs from the handler's start, so started_at is moved there.
CREATE OR REPLACE FUNCTION heartbeat(
    p_worker text, p_ids uuid[] DEFAULT '{}', p_leases bigint[] DEFAULT '{}', p_elapsed double precision[] DEFAULT '{}'
) RETURNS TABLE (status text, lost uuid[])
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
#variable_conflict use_column
DECLARE
    v_status text;
BEGIN
    UPDATE workers w
       SET heartbeat_at = CASE WHEN w.status = 'gone' THEN w.heartbeat_at ELSE clock_timestamp() END,
           last_seen_at = CASE WHEN w.status = 'gone' THEN w.last_seen_at ELSE clock_timestamp() END
     WHERE w.id = p_worker RETURNING w.status INTO v_status;
    UPDATE tasks t SET started_at = clock_timestamp() - make_interval(secs => h.elapsed)
      FROM unnest(p_ids, p_leases, p_elapsed) h(id, lease, elapsed)
     WHERE t.id = h.id AND t.lease = h.lease AND t.worker_id || '' = p_worker AND t.status || '' = 'processing'
       AND t.started_at < clock_timestamp() - make_interval(secs => h.elapsed + 1);
    RETURN QUERY
    SELECT coalesce(v_status, 'gone'),
           ARRAY(SELECT h.id FROM unnest(p_ids, p_leases) h(id, lease) LEFT JOIN tasks t ON t.id = h.id
                  WHERE t.id IS NULL OR t.lease <> h.lease OR t.status <> 'processing');
END
$$;
