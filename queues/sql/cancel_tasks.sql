-- The operators' cancel: tasks that wait or run are cancelled for good and their dependants settled.
-- The worker of a running one is told by its next heartbeat, and its late report is stale.
-- Gives for each task what was done or why it was skipped.
CREATE OR REPLACE FUNCTION cancel_tasks(p_ids uuid[], p_reason text DEFAULT NULL)
RETURNS TABLE (id uuid, outcome text, before text, after text, note text)
LANGUAGE plpgsql SET enable_seqscan = off SET enable_nestloop = on SET jit = off SET plan_cache_mode = force_custom_plan AS $$
#variable_conflict use_column
BEGIN
    PERFORM lock_with_dependants(p_ids);
    PERFORM plan_for(cardinality(p_ids));
    RETURN QUERY
    WITH judged AS MATERIALIZED (
        SELECT DISTINCT ON (r.id) r.id, t.status, CASE
                   WHEN t.status IS NULL THEN absence(r.id)
                   WHEN t.status IN ('completed', 'failed', 'cancelled') THEN 'it is ' || t.status || ' already' END AS note
          FROM unnest(p_ids) r(id) LEFT JOIN tasks t ON t.id = r.id
         WHERE r.id IS NOT NULL ORDER BY r.id
    ), changed AS (
        UPDATE tasks t
           SET status = 'cancelled', completed_at = clock_timestamp(), waits_on = 0, updated_at = clock_timestamp(),
               error = 'Cancelled' || coalesce(': ' || nullif(p_reason, ''), '')
          FROM judged j WHERE t.id = j.id AND j.note IS NULL)
    SELECT j.id, CASE WHEN j.note IS NULL THEN 'done' ELSE 'skipped' END, coalesce(j.status, ''),
           CASE WHEN j.note IS NULL THEN 'cancelled' ELSE coalesce(j.status, '') END, coalesce(j.note, '')
      FROM judged j ORDER BY j.id;
    PERFORM plan_for(1);
    -- Those that were cancelled before are settled already, so that they change nothing here.
    PERFORM settle_dependants(ARRAY(SELECT t.id FROM tasks t WHERE t.id = ANY (p_ids) AND (t.status || '') = 'cancelled'));
END
$$;
