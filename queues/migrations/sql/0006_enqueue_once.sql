-- enqueue_task for a task with a dedupe key: the live task that holds the key already, or a new one.
CREATE OR REPLACE FUNCTION enqueue_once(
    p_type text, p_payload jsonb, p_queue text, p_priority integer, p_run_at timestamptz, p_dedupe_key text, p_tenant_id text,
    p_max_attempts integer, p_timeout interval, p_correlation_id text
) RETURNS TABLE (id uuid, created boolean)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    v_id uuid;
    v_status text;
BEGIN
    PERFORM require_queue(p_queue);
    LOOP
        INSERT INTO tasks (queue, type, payload, priority, run_at, dedupe_key, tenant_id, max_attempts, timeout, correlation_id, round)
        SELECT p_queue, p_type, coalesce(p_payload, '{}'), coalesce(p_priority, 0), p_run_at, p_dedupe_key, p_tenant_id,
               coalesce(p_max_attempts, q.default_max_attempts), p_timeout, p_correlation_id,
               CASE WHEN q.fair THEN next_round(p_queue, p_tenant_id, p_priority) ELSE 0 END
          FROM queues q WHERE q.name = p_queue
        ON CONFLICT (coalesce(tenant_id, ''), type, dedupe_key)
            WHERE dedupe_key IS NOT NULL AND status IN ('blocked', 'scheduled', 'pending', 'processing')
            DO NOTHING
        RETURNING tasks.id, tasks.status INTO v_id, v_status;
        EXIT WHEN v_id IS NOT NULL;
        v_id := live_task_of(p_tenant_id, p_type, p_dedupe_key);
        IF v_id IS NOT NULL THEN
            RETURN QUERY SELECT v_id, false;
            RETURN;
        END IF;
        -- The task that held the key has just finished: try again.
    END LOOP;
    IF v_status = 'pending' THEN
        PERFORM wake_workers(p_queue);
    END IF;
    RETURN QUERY SELECT v_id, true;
END
$$;
