-- The operators' retry: failed or cancelled tasks become pending again with attempts 0; their error
-- history is kept. p_dependants: the tasks that were cancelled because of them come back too, blocked
-- until their predecessors complete. Gives for each task what was done or why it was skipped.
CREATE OR REPLACE FUNCTION retry_tasks(p_ids uuid[], p_dependants boolean DEFAULT false)
RETURNS TABLE (id uuid, outcome text, before text, after text, note text)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    v_ids uuid[] := ARRAY(SELECT DISTINCT unnest(p_ids));
    v tasks;
    v_id uuid;
    v_waits integer;
    v_failed uuid;
    v_status text;
BEGIN
    IF p_dependants THEN
        v_ids := ARRAY(
            WITH RECURSIVE reach(id, depth) AS (
                SELECT i, 0 FROM unnest(p_ids) i
                UNION
                SELECT d.task_id, r.depth + 1 FROM reach r JOIN task_dependencies d ON d.predecessor_id = r.id AND d.outcome = 'cancelled')
            SELECT r.id FROM reach r GROUP BY r.id ORDER BY max(r.depth), r.id);
    END IF;
    PERFORM require_read_committed();
    -- With their predecessors: one that finishes meanwhile would not see that it is waited for again.
    PERFORM FROM tasks t
      WHERE t.id = ANY (v_ids || ARRAY(SELECT d.predecessor_id FROM task_dependencies d WHERE d.task_id = ANY (v_ids)))
      ORDER BY t.id FOR NO KEY UPDATE;
    FOREACH v_id IN ARRAY v_ids LOOP
        SELECT * INTO v FROM tasks t WHERE t.id = v_id;
        IF NOT FOUND THEN
            RETURN QUERY SELECT v_id, 'skipped', '', '', 'it does not exist';
            CONTINUE;
        END IF;
        IF v.status NOT IN ('failed', 'cancelled') THEN
            RETURN QUERY SELECT v_id, 'skipped', v.status, v.status, 'it is ' || v.status || ', not failed or cancelled';
            CONTINUE;
        END IF;
        SELECT count(*) FILTER (WHERE p.status NOT IN ('completed', 'failed', 'cancelled')),
               (array_agg(p.id) FILTER (WHERE p.status IN ('failed', 'cancelled') AND d.on_failure = 'cancel'))[1]
          INTO v_waits, v_failed
          FROM task_dependencies d JOIN tasks p ON p.id = d.predecessor_id WHERE d.task_id = v_id;
        IF v_failed IS NOT NULL THEN
            RETURN QUERY SELECT v_id, 'skipped', v.status, v.status, 'its predecessor ' || v_failed || ' did not complete: retry that one, with its dependants';
            CONTINUE;
        END IF;
        BEGIN
            UPDATE tasks t
               SET status = CASE WHEN v_waits > 0 THEN 'blocked' ELSE 'pending' END, waits_on = v_waits,
                   attempts = 0, lost = 0, run_at = clock_timestamp(), completed_at = NULL, worker_id = NULL,
                   started_at = NULL, error = NULL, error_fingerprint = NULL, result = NULL, progress = NULL,
                   progress_note = NULL, updated_at = clock_timestamp()
             WHERE t.id = v_id RETURNING t.status INTO v_status;
        EXCEPTION WHEN unique_violation THEN
            RETURN QUERY SELECT v_id, 'skipped', v.status, v.status, 'another live task holds its dedupe key ' || v.dedupe_key;
            CONTINUE;
        END;
        UPDATE task_dependencies d SET outcome = NULL
          FROM tasks p WHERE d.task_id = v_id AND p.id = d.predecessor_id
           AND p.status NOT IN ('completed', 'failed', 'cancelled');
        IF v_status = 'pending' THEN
            PERFORM wake_workers(v.queue);
        END IF;
        RETURN QUERY SELECT v_id, 'done', v.status, v_status, '';
    END LOOP;
END
$$;
