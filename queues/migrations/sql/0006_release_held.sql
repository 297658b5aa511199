-- The operators' release: processing tasks go back to their queue whether or not their worker lives, the
-- attempt refunded. The worker is told by its next heartbeat, and its late report is stale. p_reason is
-- kept as the task's last error. p_leases: what the operator saw; a task that was claimed anew since then
-- is left alone. Gives for each task what was done or why it was skipped. Error 22023 without a reason.
CREATE OR REPLACE FUNCTION release_held(p_ids uuid[], p_reason text, p_leases bigint[] DEFAULT NULL)
RETURNS TABLE (id uuid, outcome text, before text, after text, note text)
LANGUAGE plpgsql SET enable_seqscan = off SET enable_nestloop = on SET jit = off SET plan_cache_mode = force_custom_plan AS $$
#variable_conflict use_column
BEGIN
    PERFORM require_read_committed();
    IF coalesce(p_reason, '') !~ '\S' THEN
        RAISE EXCEPTION 'Releasing a task that a worker holds needs a reason.' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    PERFORM FROM tasks t WHERE t.id = ANY (p_ids) ORDER BY t.id FOR NO KEY UPDATE;
    PERFORM plan_for(cardinality(p_ids));
    RETURN QUERY
    WITH judged AS MATERIALIZED (
        SELECT DISTINCT ON (r.id) r.id, t.status, CASE
                   WHEN t.status IS NULL THEN absence(r.id)
                   WHEN t.status <> 'processing' THEN 'it is ' || t.status || ', not processing'
                   WHEN r.lease <> t.lease THEN 'it was claimed again since you looked' END AS note
          FROM unnest(p_ids, p_leases) r(id, lease) LEFT JOIN tasks t ON t.id = r.id
         WHERE r.id IS NOT NULL ORDER BY r.id
    ), changed AS (
        UPDATE tasks t
           SET status = 'pending', worker_id = NULL, attempts = greatest(t.attempts - 1, 0),
               run_at = least(t.run_at, clock_timestamp()), progress = NULL, progress_note = NULL,
               error = 'Released: ' || p_reason, updated_at = clock_timestamp()
          FROM judged j WHERE t.id = j.id AND j.note IS NULL)
    SELECT j.id, CASE WHEN j.note IS NULL THEN 'done' ELSE 'skipped' END, coalesce(j.status, ''),
           CASE WHEN j.note IS NULL THEN 'pending' ELSE coalesce(j.status, '') END, coalesce(j.note, '')
      FROM judged j ORDER BY j.id;
    PERFORM plan_for(1);
    PERFORM wake_queues_of(p_ids);
END
$$;
