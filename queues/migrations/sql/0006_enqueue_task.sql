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
    q constant queues := know_queue(p_queue);
    v_now constant timestamptz := clock_timestamp();
    v_round bigint := 0;
    v_id uuid;
BEGIN
    IF cardinality(p_after) > 0 THEN
        RETURN QUERY SELECT * FROM enqueue_after(
            p_type, p_payload, q, p_priority, p_run_at, p_dedupe_key, p_after, p_on_failure, p_tenant_id, p_max_attempts,
            p_timeout, p_correlation_id);
        RETURN;
    END IF;
    IF q.fair THEN
        v_round := next_round(p_queue, p_tenant_id, p_priority);
    END IF;
    LOOP
        INSERT INTO tasks (queue, type, payload, priority, run_at, dedupe_key, tenant_id, max_attempts, timeout, correlation_id, round)
        VALUES (p_queue, p_type, coalesce(p_payload, '{}'), coalesce(p_priority, 0), coalesce(p_run_at, v_now), p_dedupe_key,
                p_tenant_id, coalesce(p_max_attempts, q.default_max_attempts), p_timeout, p_correlation_id, v_round)
        ON CONFLICT (coalesce(tenant_id, ''), type, dedupe_key)
            WHERE dedupe_key IS NOT NULL AND status IN ('blocked', 'scheduled', 'pending', 'processing')
            DO NOTHING
        RETURNING tasks.id INTO v_id;
        EXIT WHEN v_id IS NOT NULL;
        v_id := live_task_of(p_tenant_id, p_type, p_dedupe_key);
        IF v_id IS NOT NULL THEN
            RETURN QUERY SELECT v_id, false;
            RETURN;
        END IF;
        -- The task that held the key has just finished: try again.
    END LOOP;
    IF p_run_at IS NULL OR p_run_at <= v_now THEN
        PERFORM wake_workers(p_queue);
    END IF;
    RETURN QUERY SELECT v_id, true;
END
$$;
