-- The operators' move: tasks that wait go to another queue and wait there, in the same state. Gives for
-- each task what was done (note: from which to which) or why it was skipped. Error 23503 unknown queue.
CREATE OR REPLACE FUNCTION move_tasks(p_ids uuid[], p_queue text)
RETURNS TABLE (id uuid, outcome text, before text, after text, note text)
LANGUAGE plpgsql SET enable_seqscan = off SET enable_nestloop = on SET jit = off SET plan_cache_mode = force_custom_plan AS $$
#variable_conflict use_column
DECLARE
    v_moved uuid[];
BEGIN
    PERFORM require_read_committed();
    PERFORM require_queue(p_queue);
    PERFORM FROM tasks t WHERE t.id = ANY (p_ids) ORDER BY t.id FOR NO KEY UPDATE;
    v_moved := ARRAY(SELECT t.id FROM tasks t WHERE t.id = ANY (p_ids) AND t.queue <> p_queue);
    PERFORM plan_for(cardinality(p_ids));
    RETURN QUERY
    WITH judged AS MATERIALIZED (
        SELECT DISTINCT ON (r.id) r.id, t.status, t.queue, CASE
                   WHEN t.status IS NULL THEN absence(r.id)
                   WHEN t.status NOT IN ('blocked', 'scheduled', 'pending') THEN 'it is ' || t.status || ', not waiting'
                   WHEN t.queue = p_queue THEN 'it is in queue ' || p_queue || ' already' END AS note
          FROM unnest(p_ids) r(id) LEFT JOIN tasks t ON t.id = r.id
         WHERE r.id IS NOT NULL ORDER BY r.id
    ), changed AS (
        UPDATE tasks t SET queue = p_queue, round = 0, updated_at = clock_timestamp()
          FROM judged j WHERE t.id = j.id AND j.note IS NULL)
    SELECT j.id, CASE WHEN j.note IS NULL THEN 'done' ELSE 'skipped' END, coalesce(j.status, ''), coalesce(j.status, ''),
           coalesce(j.note, 'queue ' || j.queue || ' → ' || p_queue)
      FROM judged j ORDER BY j.id;
    PERFORM plan_for(1);
    PERFORM assign_rounds(v_moved);
    PERFORM wake_queues_of(v_moved);
END
$$;
