-- The operators' requeue, attempts kept: scheduled tasks become pending now; processing tasks do only
-- where stuck_reason says so, or with p_force. p_leases: what the operator saw; a task that was claimed
-- anew since then is left alone. Gives for each task what was done or why it was skipped.
CREATE OR REPLACE FUNCTION requeue_tasks(p_ids uuid[], p_leases bigint[] DEFAULT NULL, p_force boolean DEFAULT false,
                                         p_silence interval DEFAULT '30 seconds')
RETURNS TABLE (id uuid, outcome text, before text, after text, note text)
LANGUAGE plpgsql SET enable_seqscan = off SET enable_nestloop = on SET jit = off SET plan_cache_mode = force_custom_plan AS $$
#variable_conflict use_column
DECLARE
    v_due uuid[];
BEGIN
    PERFORM require_read_committed();
    PERFORM FROM tasks t WHERE t.id = ANY (p_ids) ORDER BY t.id FOR NO KEY UPDATE;
    v_due := ARRAY(SELECT t.id FROM tasks t WHERE t.id = ANY (p_ids) AND t.status || '' = 'scheduled');
    PERFORM plan_for(cardinality(p_ids));
    RETURN QUERY
    WITH asked AS (
        SELECT DISTINCT ON (r.id) r.id, r.lease AS seen, t.lease, t.status,
               CASE WHEN t.status = 'processing' THEN stuck_reason(w.status, w.heartbeat_at, t.started_at,
                   coalesce(t.timeout, q.default_timeout), p_silence) END AS reason
          FROM unnest(p_ids, p_leases) r(id, lease)
          LEFT JOIN tasks t ON t.id = r.id LEFT JOIN queues q ON q.name = t.queue LEFT JOIN workers w ON w.id = t.worker_id
         WHERE r.id IS NOT NULL ORDER BY r.id
    ), judged AS MATERIALIZED (
        SELECT a.id, a.status, a.reason, CASE
                   WHEN a.status IS NULL THEN absence(a.id)
                   WHEN a.status NOT IN ('scheduled', 'processing') THEN 'it is ' || a.status || ', not scheduled or processing'
                   WHEN a.seen <> a.lease THEN 'it was claimed again since you looked'
                   WHEN a.status = 'processing' AND a.reason IS NULL AND NOT p_force
                       THEN 'its worker is alive and its timeout has not passed' END AS note
          FROM asked a
    ), changed AS (
        UPDATE tasks t
           SET status = 'pending', run_at = least(t.run_at, clock_timestamp()), worker_id = NULL,
               progress = NULL, progress_note = NULL, updated_at = clock_timestamp(),
               errors = CASE WHEN j.status = 'processing'
                   THEN add_error(t.errors, attempt_record(t.attempts, t.worker_id, t.started_at, jsonb_build_object(
                       'class', 'Requeued', 'message', coalesce(j.reason, 'an operator took it back by force'))))
                   ELSE t.errors END
          FROM judged j WHERE t.id = j.id AND j.note IS NULL)
    SELECT j.id, CASE WHEN j.note IS NULL THEN 'done' ELSE 'skipped' END, coalesce(j.status, ''),
           CASE WHEN j.note IS NULL THEN 'pending' ELSE coalesce(j.status, '') END, coalesce(j.note, j.reason, '')
      FROM judged j ORDER BY j.id;
    PERFORM plan_for(1);
    PERFORM assign_rounds(v_due);
    PERFORM wake_queues_of(p_ids);
END
$$;
