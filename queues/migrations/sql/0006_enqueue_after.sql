-- enqueue_task for a task that waits on others.
CREATE OR REPLACE FUNCTION enqueue_after(
    p_type text, p_payload jsonb, p_queue text, p_priority integer, p_run_at timestamptz, p_dedupe_key text, p_after uuid[],
    p_on_failure text, p_tenant_id text, p_max_attempts integer, p_timeout interval, p_correlation_id text
) RETURNS TABLE (id uuid, created boolean)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    q queues;
    v_known jsonb;
    v_missing text;
    v_failed text;
    v_waits_on integer;
    v_status text := 'pending';
    v_id uuid;
BEGIN
    PERFORM require_read_committed();
    PERFORM require_queue(p_queue);
    SELECT * INTO q FROM queues WHERE name = p_queue;
    SELECT coalesce(jsonb_object_agg(s.id, s.status), '{}'),
           count(*) FILTER (WHERE s.status NOT IN ('completed', 'failed', 'cancelled')),
           min(s.id::text) FILTER (WHERE s.status IN ('failed', 'cancelled'))
      INTO v_known, v_waits_on, v_failed FROM predecessor_states(p_after) s;
    SELECT coalesce(a::text, 'null') INTO v_missing FROM unnest(p_after) a WHERE a IS NULL OR NOT v_known ? a::text LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'predecessor % does not exist', v_missing
            USING ERRCODE = 'foreign_key_violation', HINT = 'Enqueue the predecessor first and pass its id.';
    END IF;
    IF v_failed IS NOT NULL AND p_on_failure = 'cancel' THEN
        v_status := 'cancelled';
        v_waits_on := 0;
    ELSIF v_waits_on > 0 THEN
        v_status := 'blocked';
    END IF;
    LOOP
        INSERT INTO tasks (queue, type, payload, status, priority, run_at, dedupe_key, waits_on, tenant_id, max_attempts,
                           timeout, correlation_id, completed_at, error)
        VALUES (q.name, p_type, coalesce(p_payload, '{}'), v_status, coalesce(p_priority, 0),
                p_run_at, p_dedupe_key, v_waits_on, p_tenant_id,
                coalesce(p_max_attempts, q.default_max_attempts), p_timeout, p_correlation_id,
                CASE WHEN v_status = 'cancelled' THEN clock_timestamp() END,
                CASE WHEN v_status = 'cancelled' THEN 'Predecessor ' || v_failed || ' did not complete.' END)
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
    END LOOP;
    INSERT INTO task_dependencies (task_id, predecessor_id, on_failure, outcome)
    SELECT v_id, k.key::uuid, p_on_failure,
           CASE WHEN k.value IN ('failed', 'cancelled') AND p_on_failure = 'cancel' THEN 'cancelled'
                WHEN k.value IN ('completed', 'failed', 'cancelled') THEN 'released' END
      FROM jsonb_each_text(v_known) k;
    IF v_status = 'pending' THEN
        PERFORM assign_rounds(ARRAY[v_id]);
        PERFORM wake_workers(q.name);
    END IF;
    RETURN QUERY SELECT v_id, true;
END
$$;
