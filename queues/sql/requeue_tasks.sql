-- The operators' requeue, attempts kept: scheduled tasks become pending now; processing tasks do only
-- where stuck_reason says so, or with p_force. p_leases: what the operator saw; a task that was claimed
-- anew since then is left alone. Gives for each task what was done or why it was skipped.
CREATE OR REPLACE FUNCTION requeue_tasks(p_ids uuid[], p_leases bigint[] DEFAULT NULL, p_force boolean DEFAULT false,
                                         p_silence interval DEFAULT '30 seconds')
RETURNS TABLE (id uuid, outcome text, before text, after text, note text)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    v record;
    v_note text;
BEGIN
    PERFORM FROM tasks t WHERE t.id = ANY (p_ids) ORDER BY t.id FOR NO KEY UPDATE;
    FOR v IN
        SELECT DISTINCT ON (r.id) r.id, r.lease AS seen, t.lease, t.status, t.queue, t.worker_id, t.attempts, t.started_at,
               stuck_reason(w.status, w.heartbeat_at, t.started_at, coalesce(t.timeout, q.default_timeout), p_silence) AS reason
          FROM unnest(p_ids, p_leases) r(id, lease)
          LEFT JOIN tasks t ON t.id = r.id LEFT JOIN queues q ON q.name = t.queue LEFT JOIN workers w ON w.id = t.worker_id
         ORDER BY r.id
    LOOP
        v_note := CASE
            WHEN v.status IS NULL THEN 'it does not exist'
            WHEN v.status NOT IN ('scheduled', 'processing') THEN 'it is ' || v.status || ', not scheduled or processing'
            WHEN v.seen <> v.lease THEN 'it was claimed again since you looked'
            WHEN v.status = 'processing' AND v.reason IS NULL AND NOT p_force THEN 'its worker is alive and its timeout has not passed'
        END;
        IF v_note IS NOT NULL THEN
            RETURN QUERY SELECT v.id, 'skipped', coalesce(v.status, ''), coalesce(v.status, ''), v_note;
            CONTINUE;
        END IF;
        UPDATE tasks t
           SET status = 'pending', run_at = least(t.run_at, clock_timestamp()), worker_id = NULL,
               progress = NULL, progress_note = NULL, updated_at = clock_timestamp(),
               errors = CASE WHEN v.status = 'processing'
                   THEN add_error(t.errors, attempt_record(v.attempts, v.worker_id, v.started_at, jsonb_build_object(
                       'class', 'Requeued', 'message', coalesce(v.reason, 'an operator took it back by force'))))
                   ELSE t.errors END
         WHERE t.id = v.id;
        PERFORM wake_workers(v.queue);
        RETURN QUERY SELECT v.id, 'done', v.status, 'pending', coalesce(v.reason, '');
    END LOOP;
END
$$;
