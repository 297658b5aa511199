-- Puts many tasks in their queues in one statement. p_tasks is a jsonb array of objects whose keys
-- are enqueue_task's argument names without p_ (timeout in seconds, run_at as ISO 8601 text, or delay:
-- seconds from now).
-- Gives a row a task in the order given. All or nothing: an unknown key, a missing type, an unknown
-- queue or a value out of range refuses the whole call, naming the task by its number from 1.
CREATE OR REPLACE FUNCTION enqueue_tasks(p_tasks jsonb)
RETURNS TABLE (ordinal integer, id uuid, created boolean)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp SET jit = off AS $$
#variable_conflict use_column
DECLARE
    v record;
    v_constraint text;
    v_hint text;
BEGIN
    RETURN QUERY SELECT * FROM enqueue_all(p_tasks);
EXCEPTION WHEN data_exception OR integrity_constraint_violation THEN
    IF SQLERRM ~ '^task \d+: ' OR jsonb_typeof(p_tasks) <> 'array' THEN
        RAISE;
    END IF;
    -- Nothing was written. One by one, to find the one to blame.
    FOR v IN SELECT e.value, e.ordinality AS n FROM jsonb_array_elements(p_tasks) WITH ORDINALITY e ORDER BY e.ordinality LOOP
        BEGIN
            PERFORM enqueue_all(jsonb_build_array(v.value));
        EXCEPTION WHEN data_exception OR integrity_constraint_violation THEN
            GET STACKED DIAGNOSTICS v_constraint = CONSTRAINT_NAME, v_hint = PG_EXCEPTION_HINT;
            RAISE EXCEPTION 'task %: %', v.n, regexp_replace(SQLERRM, '^task 1: ', '')
                USING ERRCODE = SQLSTATE, CONSTRAINT = v_constraint, HINT = coalesce(nullif(v_hint, ''), 'Nothing was enqueued.');
        END;
    END LOOP;
    RAISE;
END
$$;
