-- The operators' reprioritising: tasks that wait get p_priority, -100 to 100, higher runs first. Gives for
-- each task what was done (note: from which to which) or why it was skipped. Error 22023 out of range.
CREATE OR REPLACE FUNCTION set_priority(p_ids uuid[], p_priority integer)
RETURNS TABLE (id uuid, outcome text, before text, after text, note text)
LANGUAGE plpgsql SET enable_seqscan = off SET enable_nestloop = on SET jit = off SET plan_cache_mode = force_custom_plan AS $$
#variable_conflict use_column
DECLARE
    v_changed uuid[];
BEGIN
    PERFORM require_read_committed();
    IF p_priority IS NULL OR p_priority NOT BETWEEN -100 AND 100 THEN
        RAISE EXCEPTION 'A priority is a whole number from -100 to 100.' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    PERFORM FROM tasks t WHERE t.id = ANY (p_ids) ORDER BY t.id FOR NO KEY UPDATE;
    v_changed := ARRAY(SELECT t.id FROM tasks t WHERE t.id = ANY (p_ids) AND t.status || '' = 'pending' AND t.priority <> p_priority);
    PERFORM plan_for(cardinality(p_ids));
    RETURN QUERY
    WITH judged AS MATERIALIZED (
        SELECT DISTINCT ON (r.id) r.id, t.status, t.priority, CASE
                   WHEN t.status IS NULL THEN absence(r.id)
                   WHEN t.status NOT IN ('blocked', 'scheduled', 'pending') THEN 'it is ' || t.status || ', not waiting'
                   WHEN t.priority = p_priority THEN 'its priority is ' || p_priority || ' already' END AS note
          FROM unnest(p_ids) r(id) LEFT JOIN tasks t ON t.id = r.id
         WHERE r.id IS NOT NULL ORDER BY r.id
    ), changed AS (
        UPDATE tasks t SET priority = p_priority, updated_at = clock_timestamp()
          FROM judged j WHERE t.id = j.id AND j.note IS NULL)
    SELECT j.id, CASE WHEN j.note IS NULL THEN 'done' ELSE 'skipped' END, coalesce(j.status, ''), coalesce(j.status, ''),
           coalesce(j.note, 'priority ' || j.priority || ' → ' || p_priority)
      FROM judged j ORDER BY j.id;
    PERFORM plan_for(1);
    PERFORM assign_rounds(v_changed);
END
$$;
