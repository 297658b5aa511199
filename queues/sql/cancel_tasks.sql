-- The operators' cancel: tasks that wait or run are cancelled for good and their dependants settled.
-- The worker of a running one is told by its next heartbeat, and its late report is stale.
-- Gives for each task what was done or why it was skipped.
CREATE OR REPLACE FUNCTION cancel_tasks(p_ids uuid[], p_reason text DEFAULT NULL)
RETURNS TABLE (id uuid, outcome text, before text, after text, note text)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    v record;
    v_done uuid[] := '{}';
BEGIN
    PERFORM lock_with_dependants(p_ids);
    FOR v IN SELECT r.id, t.status FROM (SELECT DISTINCT unnest(p_ids) AS id) r LEFT JOIN tasks t ON t.id = r.id ORDER BY r.id LOOP
        IF v.status IS NULL THEN
            RETURN QUERY SELECT v.id, 'skipped', '', '', 'it does not exist';
        ELSIF v.status IN ('completed', 'failed', 'cancelled') THEN
            RETURN QUERY SELECT v.id, 'skipped', v.status, v.status, 'it is ' || v.status || ' already';
        ELSE
            UPDATE tasks t
               SET status = 'cancelled', completed_at = clock_timestamp(), waits_on = 0, updated_at = clock_timestamp(),
                   error = 'Cancelled' || coalesce(': ' || nullif(p_reason, ''), '')
             WHERE t.id = v.id;
            v_done := v_done || v.id;
            RETURN QUERY SELECT v.id, 'done', v.status, 'cancelled', '';
        END IF;
    END LOOP;
    PERFORM settle_dependants(v_done);
END
$$;
