-- Records failed attempts of tasks that the caller holds by (id, lease). p_errors: objects with class,
-- message, traceback, fingerprint, and lost where the process that ran it died. A task with attempts left
-- is scheduled again, after p_delays (null: retry_delay of p_backoffs); one whose p_final is true, or that
-- has used max_attempts or lost its process three times, fails for good and its dependants are settled.
-- Gives for each: recorded, already or stale, the new status and run_at.
CREATE OR REPLACE FUNCTION fail_tasks(
    p_ids uuid[], p_leases bigint[], p_errors jsonb[], p_delays interval[] DEFAULT NULL, p_final boolean[] DEFAULT NULL,
    p_backoffs interval[] DEFAULT NULL
) RETURNS TABLE (id uuid, outcome text, status text, run_at timestamptz)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp SET jit = off AS $$
#variable_conflict use_column
DECLARE
    v_done uuid[];
    v_final uuid[];
BEGIN
    PERFORM lock_with_dependants(p_ids);
    WITH done AS (
        UPDATE tasks t
           SET status = CASE WHEN f.final THEN 'failed' ELSE 'scheduled' END,
               completed_at = CASE WHEN f.final THEN clock_timestamp() END,
               run_at = CASE WHEN f.final THEN t.run_at
                             ELSE clock_timestamp() + least(interval '1 year',
                                 coalesce(f.delay, retry_delay(t.attempts, coalesce(f.backoff, '5 seconds')))) END,
               worker_id = CASE WHEN f.final THEN t.worker_id END,
               lost = t.lost + f.lost,
               progress = CASE WHEN f.final THEN t.progress END, progress_note = CASE WHEN f.final THEN t.progress_note END,
               error = left(concat_ws(': ', f.error ->> 'class', f.error ->> 'message'), 4000),
               error_fingerprint = left(f.error ->> 'fingerprint', 200),
               errors = add_error(t.errors, attempt_record(t.attempts, t.worker_id, t.started_at, f.error)),
               updated_at = clock_timestamp()
          FROM (SELECT r.id, r.lease, r.error, r.delay, r.backoff,
                       coalesce((r.error ->> 'lost')::boolean, false)::integer AS lost,
                       coalesce(r.final, false) OR x.attempts >= x.max_attempts
                           OR x.lost + coalesce((r.error ->> 'lost')::boolean, false)::integer >= 3 AS final
                  FROM unnest(p_ids, p_leases, p_errors, p_delays, p_final, p_backoffs)
                       r(id, lease, error, delay, final, backoff)
                  JOIN tasks x ON x.id = r.id) f
         WHERE t.id = f.id AND t.lease = f.lease AND (t.status || '') = 'processing'
        RETURNING t.id, t.status)
    SELECT coalesce(array_agg(d.id), '{}'), coalesce(array_agg(d.id) FILTER (WHERE d.status = 'failed'), '{}')
      INTO v_done, v_final FROM done d;
    PERFORM settle_dependants(v_final);
    RETURN QUERY
    SELECT r.id,
           CASE WHEN r.id = ANY (v_done) THEN 'recorded'
                WHEN t.lease = r.lease AND t.status IN ('failed', 'scheduled', 'pending')
                     AND (t.errors -> -1 ->> 'attempt')::integer = t.attempts
                     AND coalesce(t.errors -> -1 ->> 'class', '') NOT IN ('Lost', 'Requeued') THEN 'already'
                ELSE 'stale' END,
           t.status, t.run_at
      FROM unnest(p_ids, p_leases) r(id, lease) LEFT JOIN tasks t ON t.id = r.id;
END
$$;
