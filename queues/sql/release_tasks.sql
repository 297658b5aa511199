-- Gives tasks that the caller holds by (id, lease) back unfinished, attempt not charged, at once or
-- after p_delay. p_reason is kept as the task's last error. Gives for each: recorded or stale.
CREATE OR REPLACE FUNCTION release_tasks(
    p_ids uuid[], p_leases bigint[], p_delay interval DEFAULT '0', p_reason text DEFAULT NULL
) RETURNS TABLE (id uuid, outcome text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp SET jit = off AS $$
#variable_conflict use_column
DECLARE
    v_done uuid[];
    v_queue text;
BEGIN
    PERFORM FROM tasks t WHERE t.id = ANY (p_ids) ORDER BY t.id FOR NO KEY UPDATE;
    WITH done AS (
        UPDATE tasks t
           SET status = CASE WHEN p_delay > interval '0' THEN 'scheduled' ELSE 'pending' END,
               run_at = CASE WHEN p_delay > interval '0' THEN clock_timestamp() + least(p_delay, interval '1 year') ELSE t.run_at END,
               worker_id = NULL, attempts = t.attempts - 1, error = coalesce(p_reason, t.error),
               progress = NULL, progress_note = NULL, updated_at = clock_timestamp()
          FROM unnest(p_ids, p_leases) r(id, lease)
         WHERE t.id = r.id AND t.lease = r.lease AND (t.status || '') = 'processing'
        RETURNING t.id)
    SELECT coalesce(array_agg(d.id), '{}') INTO v_done FROM done d;
    FOR v_queue IN SELECT DISTINCT t.queue FROM tasks t WHERE t.id = ANY (v_done) AND t.status = 'pending' LOOP
        PERFORM wake_workers(v_queue);
    END LOOP;
    RETURN QUERY SELECT r.id, CASE WHEN r.id = ANY (v_done) THEN 'recorded' ELSE 'stale' END FROM unnest(p_ids) r(id);
END
$$;
