-- Takes back up to p_limit tasks whose worker is gone or whose timeout has passed. Each returns after
-- a short pause with its attempt charged and lost + 1, or fails for good when its attempts are used
-- up or it has lost its worker p_max_lost times (poison). A late report of the old holder is stale.
-- A worker process that held more tasks than it runs at once had most of them waiting in its buffer:
-- none of these is blamed, lost stays as it is.
-- Decides on the locked row, so it is safe to run at once in every worker. Gives what it did; call
-- again until it gives nothing: tasks that fail for good are left to a call of their own, since
-- their dependants must be locked together with them.
CREATE OR REPLACE FUNCTION rescue_lost(
    p_silence interval DEFAULT '30 seconds', p_max_lost integer DEFAULT 3, p_limit integer DEFAULT 500
) RETURNS TABLE (id uuid, status text, reason text)
LANGUAGE plpgsql SET jit = off AS $$
#variable_conflict use_column
DECLARE
    v_final uuid[];
    v_blameless text[];
BEGIN
    PERFORM require_read_committed();
    PERFORM mark_workers_gone(p_silence);
    v_blameless := ARRAY(
        SELECT w.id FROM workers w JOIN (
            SELECT t.worker_id, count(*) AS held FROM tasks t WHERE t.status = 'processing' GROUP BY 1) h ON h.worker_id = w.id
         WHERE w.kind = 'process' AND h.held > w.concurrency);
    RETURN QUERY
    UPDATE tasks t
       SET status = 'scheduled', worker_id = NULL, lost = t.lost + s.blamed, progress = NULL, progress_note = NULL,
           run_at = clock_timestamp() + retry_delay(t.lost::integer, interval '2 seconds', interval '1 hour'),
           error = lost_sentence(s.reason, t.worker_id, t.lost + s.blamed), error_fingerprint = 'lost: ' || s.reason,
           errors = add_error(t.errors, attempt_record(t.attempts, t.worker_id, t.started_at,
               jsonb_build_object('class', 'Lost', 'message', s.reason))),
           updated_at = clock_timestamp()
      FROM (SELECT t.id, (t.worker_id <> ALL (v_blameless))::integer AS blamed,
                   stuck_reason(w.status, w.heartbeat_at, t.started_at, coalesce(t.timeout, q.default_timeout), p_silence) AS reason
              FROM tasks t JOIN queues q ON q.name = t.queue LEFT JOIN workers w ON w.id = t.worker_id
             WHERE t.status = 'processing' AND t.lost + (t.worker_id <> ALL (v_blameless))::integer < p_max_lost
               AND t.attempts < t.max_attempts
               AND stuck_reason(w.status, w.heartbeat_at, t.started_at, coalesce(t.timeout, q.default_timeout), p_silence) IS NOT NULL
             ORDER BY t.id LIMIT p_limit FOR NO KEY UPDATE OF t SKIP LOCKED) s
     WHERE t.id = s.id
    RETURNING t.id, t.status, s.reason;
    IF FOUND THEN
        RETURN;
    END IF;
    v_final := ARRAY(
        SELECT t.id FROM tasks t JOIN queues q ON q.name = t.queue LEFT JOIN workers w ON w.id = t.worker_id
         WHERE t.status = 'processing'
           AND stuck_reason(w.status, w.heartbeat_at, t.started_at, coalesce(t.timeout, q.default_timeout), p_silence) IS NOT NULL
           AND (t.lost + (t.worker_id <> ALL (v_blameless))::integer >= p_max_lost OR t.attempts >= t.max_attempts)
         ORDER BY t.id LIMIT p_limit);
    IF v_final = '{}' THEN
        RETURN;
    END IF;
    PERFORM lock_with_dependants(v_final);
    RETURN QUERY
    UPDATE tasks t
       SET status = 'failed', completed_at = clock_timestamp(), lost = t.lost + s.blamed,
           error = lost_sentence(s.reason, t.worker_id, t.lost + s.blamed), error_fingerprint = 'lost: ' || s.reason,
           errors = add_error(t.errors, attempt_record(t.attempts, t.worker_id, t.started_at,
               jsonb_build_object('class', 'Lost', 'message', s.reason))),
           updated_at = clock_timestamp()
      FROM (SELECT x.id, (x.worker_id <> ALL (v_blameless))::integer AS blamed,
                   stuck_reason(w.status, w.heartbeat_at, x.started_at, coalesce(x.timeout, q.default_timeout), p_silence) AS reason
              FROM tasks x JOIN queues q ON q.name = x.queue LEFT JOIN workers w ON w.id = x.worker_id
             WHERE x.id = ANY (v_final)) s
     WHERE t.id = s.id AND t.status || '' = 'processing' AND s.reason IS NOT NULL
       AND (t.lost + s.blamed >= p_max_lost OR t.attempts >= t.max_attempts)
    RETURNING t.id, t.status, s.reason;
    PERFORM settle_dependants(ARRAY(SELECT t.id FROM tasks t WHERE t.id = ANY (v_final) AND t.status = 'failed'));
END
$$;
