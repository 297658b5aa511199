-- Puts one task in a queue, inside the caller's transaction, and gives its id and created = true.
-- With p_dedupe_key: if a live task of the same tenant, type and key exists, gives that task's id
-- and created = false. p_after: the task waits until each of these has completed; where one fails
-- or is cancelled, p_on_failure says 'cancel' (it is cancelled too) or 'run'. They exist already, so a
-- cycle cannot be written.
-- p_max_attempts and p_timeout default to the queue's. Errors: 23503 unknown queue or predecessor,
-- 23514 a value out of its range, 22P05 a NUL character.
CREATE OR REPLACE FUNCTION enqueue_task(
    p_type text,
    p_payload jsonb DEFAULT '{}',
    p_queue text DEFAULT 'default',
    p_priority integer DEFAULT 0,
    p_run_at timestamptz DEFAULT NULL,
    p_dedupe_key text DEFAULT NULL,
    p_after uuid[] DEFAULT NULL,
    p_on_failure text DEFAULT 'cancel',
    p_tenant_id text DEFAULT NULL,
    p_max_attempts integer DEFAULT NULL,
    p_timeout interval DEFAULT NULL,
    p_correlation_id text DEFAULT NULL
) RETURNS TABLE (id uuid, created boolean)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp SET plan_cache_mode = force_generic_plan SET jit = off AS $$
#variable_conflict use_column
DECLARE
    v_now constant timestamptz := clock_timestamp();
    v_run_at constant timestamptz := coalesce(p_run_at, v_now);
BEGIN
    IF cardinality(p_after) > 0 OR p_dedupe_key IS NOT NULL THEN
        -- Whatever the caller's session has set there: the trigger checks these.
        PERFORM set_config('opsconsole.checked_queue', '', true);
    END IF;
    IF cardinality(p_after) > 0 THEN
        RETURN QUERY SELECT * FROM enqueue_after(
            p_type, p_payload, p_queue, p_priority, v_run_at, p_dedupe_key, p_after, p_on_failure, p_tenant_id,
            p_max_attempts, p_timeout, p_correlation_id);
        RETURN;
    ELSIF p_dedupe_key IS NOT NULL THEN
        RETURN QUERY SELECT * FROM enqueue_once(
            p_type, p_payload, p_queue, p_priority, v_run_at, p_dedupe_key, p_tenant_id, p_max_attempts, p_timeout,
            p_correlation_id);
        RETURN;
    END IF;
    -- The checks of guard_insert, without a trigger's call; else it runs.
    PERFORM set_config('opsconsole.checked_queue', CASE
        WHEN btrim(p_type, E' \t\n\r') <> '' AND length(p_type) <= 200 AND coalesce(p_priority, 0) BETWEEN -100 AND 100
            AND coalesce(p_max_attempts, 1) BETWEEN 1 AND 100
            AND v_run_at BETWEEN '1970-01-01 00:00+00' AND '9999-01-01 00:00+00'
            AND coalesce(p_timeout, '1 second') BETWEEN '1 microsecond' AND '366 days'
            AND coalesce(pg_column_size(p_payload), 0) < 10000
            AND coalesce(length(p_correlation_id), 0) <= 200 AND coalesce(length(p_tenant_id), 0) <= 200
        THEN p_queue ELSE '' END, true);
    INSERT INTO tasks (queue, type, payload, status, priority, run_at, tenant_id, max_attempts, timeout, correlation_id, round)
    SELECT p_queue, p_type, coalesce(p_payload, '{}'), CASE WHEN v_run_at > v_now THEN 'scheduled' ELSE 'pending' END,
           coalesce(p_priority, 0), v_run_at, p_tenant_id, coalesce(p_max_attempts, q.default_max_attempts), p_timeout,
           p_correlation_id, CASE WHEN q.fair THEN next_round(p_queue, p_tenant_id, p_priority) ELSE 0 END
      FROM queues q WHERE q.name = p_queue
    RETURNING tasks.id INTO id;
    PERFORM set_config('opsconsole.checked_queue', '', true);
    IF id IS NULL THEN
        PERFORM require_queue(p_queue);
        -- It was made in this very moment.
        RETURN QUERY SELECT * FROM enqueue_task(
            p_type, p_payload, p_queue, p_priority, p_run_at, p_dedupe_key, p_after, p_on_failure, p_tenant_id, p_max_attempts,
            p_timeout, p_correlation_id);
        RETURN;
    END IF;
    IF v_run_at <= v_now THEN
        PERFORM wake_workers(p_queue);
    END IF;
    created := true;
    RETURN NEXT;
END
$$;
