-- Puts one task in a queue, inside the caller's transaction, and gives its id and created = true.
-- With p_dedupe_key: if a live task of the same tenant, type and key exists, gives that task's id
-- and created = false. p_after: the task waits until each of these has completed; where one fails
-- or is cancelled, p_on_failure says 'cancel' (it is cancelled too) or 'run'.
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
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
#variable_conflict use_column
DECLARE
    v_max_attempts integer;
    v_waits_on integer := 0;
    v_failed uuid;
    v_missing uuid;
    v_status text := 'pending';
    v_id uuid;
BEGIN
    SELECT q.default_max_attempts INTO v_max_attempts FROM queues q WHERE q.name = p_queue;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'queue "%" does not exist', p_queue
            USING ERRCODE = 'foreign_key_violation',
                  HINT = 'Existing queues: ' || (SELECT string_agg(q.name, ', ' ORDER BY q.name) FROM queues q)
                         || '. Create it in the console, or name it in QUEUE_NAMES and migrate.';
    END IF;
    IF cardinality(p_after) > 0 THEN
        PERFORM require_read_committed();
        -- FOR SHARE: a predecessor that is finishing now and this insert cannot pass each other by.
        PERFORM FROM tasks t WHERE t.id = ANY (p_after) ORDER BY t.id FOR SHARE;
        SELECT count(*) FILTER (WHERE t.status NOT IN ('completed', 'failed', 'cancelled')),
               (array_agg(t.id) FILTER (WHERE t.status IN ('failed', 'cancelled')))[1]
          INTO v_waits_on, v_failed FROM tasks t WHERE t.id = ANY (p_after);
        SELECT a INTO v_missing FROM unnest(p_after) a
         WHERE NOT EXISTS (SELECT FROM tasks t WHERE t.id = a) LIMIT 1;
        IF FOUND THEN
            RAISE EXCEPTION 'predecessor % does not exist', coalesce(v_missing::text, 'null')
                USING ERRCODE = 'foreign_key_violation',
                      HINT = 'Enqueue the predecessor first and pass its id.';
        END IF;
        IF v_failed IS NOT NULL AND p_on_failure = 'cancel' THEN
            v_status := 'cancelled';
            v_waits_on := 0;
        ELSIF v_waits_on > 0 THEN
            v_status := 'blocked';
        END IF;
    END IF;
    LOOP
        INSERT INTO tasks (queue, type, payload, status, priority, run_at, dedupe_key, waits_on, tenant_id,
                           max_attempts, timeout, correlation_id, completed_at, error)
        VALUES (p_queue, p_type, coalesce(p_payload, '{}'), v_status, coalesce(p_priority, 0),
                coalesce(p_run_at, clock_timestamp()), p_dedupe_key, v_waits_on, p_tenant_id,
                coalesce(p_max_attempts, v_max_attempts), p_timeout, p_correlation_id,
                CASE WHEN v_status = 'cancelled' THEN clock_timestamp() END,
                CASE WHEN v_status = 'cancelled' THEN 'Predecessor ' || v_failed || ' did not complete.' END)
        ON CONFLICT (coalesce(tenant_id, ''), type, dedupe_key)
            WHERE dedupe_key IS NOT NULL AND status IN ('blocked', 'scheduled', 'pending', 'processing')
            DO NOTHING
        RETURNING tasks.id INTO v_id;
        EXIT WHEN v_id IS NOT NULL;
        SELECT t.id INTO v_id FROM tasks t
         WHERE coalesce(t.tenant_id, '') = coalesce(p_tenant_id, '') AND t.type = p_type
           AND t.dedupe_key = p_dedupe_key AND t.status IN ('blocked', 'scheduled', 'pending', 'processing');
        IF FOUND THEN
            RETURN QUERY SELECT v_id, false;
            RETURN;
        END IF;
        -- The task that held the key has just finished: try again.
    END LOOP;
    IF cardinality(p_after) > 0 THEN
        INSERT INTO task_dependencies (task_id, predecessor_id, on_failure, outcome)
        SELECT v_id, t.id, p_on_failure,
               CASE WHEN t.status IN ('failed', 'cancelled') AND p_on_failure = 'cancel' THEN 'cancelled'
                    WHEN t.status IN ('completed', 'failed', 'cancelled') THEN 'released' END
          FROM tasks t WHERE t.id = ANY (p_after);
    END IF;
    IF v_status = 'pending' AND (p_run_at IS NULL OR p_run_at <= clock_timestamp()) THEN
        PERFORM wake_workers(p_queue);
    END IF;
    RETURN QUERY SELECT v_id, true;
END
$$;
