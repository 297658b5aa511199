-- Takes back up to p_limit tasks whose worker is gone or whose timeout has passed. Each returns after
-- a short pause with its attempt charged and lost + 1, or fails for good when its attempts are used
-- up or it has lost its worker p_max_lost times (poison). A late report of the old holder is stale.
-- Decides on the locked row, so it is safe to run at once in every worker. Gives what it did.
CREATE OR REPLACE FUNCTION rescue_lost(
    p_silence interval DEFAULT '30 seconds', p_max_lost integer DEFAULT 3, p_limit integer DEFAULT 500
) RETURNS TABLE (id uuid, status text, reason text)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    v record;
    v_final boolean;
    v_error text;
    v_failed uuid[] := '{}';
BEGIN
    PERFORM mark_workers_gone(p_silence);
    FOR v IN
        SELECT t.id, t.attempts, t.max_attempts, t.lost, t.worker_id, t.started_at, t.errors,
               stuck_reason(w.status, w.heartbeat_at, t.started_at, coalesce(t.timeout, q.default_timeout)) AS reason
          FROM tasks t JOIN queues q ON q.name = t.queue LEFT JOIN workers w ON w.id = t.worker_id
         WHERE t.status = 'processing'
           AND stuck_reason(w.status, w.heartbeat_at, t.started_at, coalesce(t.timeout, q.default_timeout)) IS NOT NULL
         ORDER BY t.id LIMIT p_limit FOR NO KEY UPDATE OF t SKIP LOCKED
    LOOP
        v_final := v.lost + 1 >= p_max_lost OR v.attempts >= v.max_attempts;
        v_error := format('Lost: %s (worker %s, %s)', v.reason, v.worker_id,
                          CASE WHEN v.lost = 0 THEN 'first time' ELSE v.lost + 1 || ' times' END);
        UPDATE tasks t
           SET status = CASE WHEN v_final THEN 'failed' ELSE 'scheduled' END,
               completed_at = CASE WHEN v_final THEN clock_timestamp() END,
               worker_id = CASE WHEN v_final THEN t.worker_id END,
               run_at = CASE WHEN v_final THEN t.run_at ELSE clock_timestamp() + retry_delay(v.lost, '2 seconds') END,
               lost = t.lost + 1, error = v_error, error_fingerprint = 'lost: ' || v.reason,
               errors = add_error(v.errors, attempt_record(v.attempts, v.worker_id, v.started_at,
                   jsonb_build_object('class', 'Lost', 'message', v.reason))),
               updated_at = clock_timestamp()
         WHERE t.id = v.id;
        IF v_final THEN
            v_failed := v_failed || v.id;
        END IF;
        RETURN QUERY SELECT v.id, CASE WHEN v_final THEN 'failed' ELSE 'scheduled' END, v.reason;
    END LOOP;
    PERFORM settle_dependants(v_failed);
END
$$;
