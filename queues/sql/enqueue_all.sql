-- What enqueue_tasks promises, but for the number of a task whose value is refused.
CREATE OR REPLACE FUNCTION enqueue_all(p_tasks jsonb)
RETURNS TABLE (ordinal integer, id uuid, created boolean)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    v record;
    v_queue text;
    v_ids uuid[];
    q queues;
BEGIN
    -- Whatever the caller's session has set there.
    PERFORM set_config('opsconsole.checked_queue', '', true);
    SELECT e.ordinality AS n INTO v FROM jsonb_array_elements(p_tasks) WITH ORDINALITY e
     WHERE jsonb_typeof(e.value) <> 'object' OR coalesce(btrim(e.value ->> 'type'), '') = '' LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'task %: it is an object with the key "type", a text that is not empty', v.n
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    SELECT e.ordinality AS n, k AS key INTO v
      FROM jsonb_array_elements(p_tasks) WITH ORDINALITY e, jsonb_object_keys(e.value) k
     WHERE k NOT IN ('type', 'payload', 'queue', 'priority', 'run_at', 'delay', 'dedupe_key', 'after', 'on_failure',
                     'tenant_id', 'max_attempts', 'timeout', 'correlation_id') LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'task %: unknown key "%"', v.n, v.key USING ERRCODE = 'invalid_parameter_value';
    END IF;
    SELECT e.ordinality AS n, coalesce(e.value ->> 'queue', 'default') AS queue INTO v
      FROM jsonb_array_elements(p_tasks) WITH ORDINALITY e
     WHERE NOT EXISTS (SELECT FROM queues q WHERE q.name = coalesce(e.value ->> 'queue', 'default')) LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'task %: queue "%" does not exist', v.n, v.queue
            USING ERRCODE = 'foreign_key_violation',
                  HINT = 'Existing queues: ' || coalesce((SELECT string_agg(q.name, ', ' ORDER BY q.name) FROM queues q), 'none')
                         || '. Create it in the console, or name it in QUEUE_NAMES and migrate.';
    END IF;

    -- All predecessors in one sorted set: taken task by task, two calls could wait for each other.
    PERFORM FROM tasks t
      WHERE t.id = ANY (ARRAY(SELECT a::uuid FROM jsonb_array_elements(p_tasks) e, jsonb_array_elements_text(coalesce(nullif(e -> 'after', 'null'), '[]')) a))
      ORDER BY t.id FOR SHARE;
    FOR v_queue IN SELECT DISTINCT coalesce(e ->> 'queue', 'default') AS name FROM jsonb_array_elements(p_tasks) e ORDER BY name LOOP
        SELECT * INTO q FROM queues WHERE name = v_queue;
        v_ids := '{}';
        FOR v IN
            WITH plain AS MATERIALIZED (
                SELECT e.ordinality::integer AS n, new_task_id() AS id, e.value AS v
                  FROM jsonb_array_elements(p_tasks) WITH ORDINALITY e
                 WHERE NOT e.value ?| ARRAY['dedupe_key', 'after'] AND coalesce(e.value ->> 'queue', 'default') = v_queue
            ), inserted AS (
                INSERT INTO tasks (id, queue, type, payload, priority, run_at, tenant_id, max_attempts, timeout, correlation_id)
                SELECT p.id, v_queue, p.v ->> 'type', coalesce(p.v -> 'payload', '{}'),
                       coalesce((p.v ->> 'priority')::integer, 0),
                       coalesce((p.v ->> 'run_at')::timestamptz,
                                clock_timestamp() + coalesce(make_interval(secs => (p.v ->> 'delay')::double precision), '0')),
                       p.v ->> 'tenant_id', coalesce((p.v ->> 'max_attempts')::integer, q.default_max_attempts),
                       make_interval(secs => (p.v ->> 'timeout')::double precision), p.v ->> 'correlation_id'
                  FROM plain p ORDER BY p.n
            )
            SELECT array_agg(p.n ORDER BY p.n) AS numbers, array_agg(p.id ORDER BY p.n) AS ids FROM plain p
        LOOP
            v_ids := v.ids;
            RETURN QUERY SELECT u.n, u.id, true FROM unnest(v.numbers, v.ids) u(n, id);
        END LOOP;
        IF q.fair THEN
            PERFORM assign_rounds(v_ids);
        END IF;
        PERFORM wake_workers(v_queue);
    END LOOP;

    FOR v IN SELECT e.ordinality::integer AS n, e.value AS v FROM jsonb_array_elements(p_tasks) WITH ORDINALITY e
              WHERE e.value ?| ARRAY['dedupe_key', 'after']
              -- In one order of keys for all callers: else two with the same keys deadlock.
              ORDER BY e.value ->> 'tenant_id', e.value ->> 'type', e.value ->> 'dedupe_key', e.ordinality LOOP
        RETURN QUERY
        SELECT v.n, t.id, t.created FROM enqueue_task(
            v.v ->> 'type', v.v -> 'payload', coalesce(v.v ->> 'queue', 'default'), (v.v ->> 'priority')::integer,
            coalesce((v.v ->> 'run_at')::timestamptz,
                     clock_timestamp() + make_interval(secs => (v.v ->> 'delay')::double precision)), v.v ->> 'dedupe_key',
            ARRAY(SELECT a::uuid FROM jsonb_array_elements_text(coalesce(nullif(v.v -> 'after', 'null'), '[]')) a),
            coalesce(v.v ->> 'on_failure', 'cancel'), v.v ->> 'tenant_id', (v.v ->> 'max_attempts')::integer,
            make_interval(secs => (v.v ->> 'timeout')::double precision), v.v ->> 'correlation_id') t;
    END LOOP;
END
$$;
