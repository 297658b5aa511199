-- The operators' run again: for each completed task, also an archived one, a new pending task with the
-- same type, payload, queue, priority, tenant, dedupe key and limits, linked by correlation_id. One whose
-- key a live task holds is skipped. Gives for each task what was done (note: the new task's id) or why it
-- was skipped.
CREATE OR REPLACE FUNCTION run_again(p_ids uuid[])
RETURNS TABLE (id uuid, outcome text, before text, after text, note text)
LANGUAGE plpgsql SET enable_seqscan = off SET enable_nestloop = on SET jit = off SET plan_cache_mode = force_custom_plan AS $$
#variable_conflict use_column
DECLARE
    v_ids uuid[] := ARRAY(SELECT DISTINCT i FROM unnest(p_ids) i WHERE i IS NOT NULL ORDER BY i);
    v_new uuid[] := ARRAY(SELECT new_task_id() FROM unnest(v_ids));
    v_missing uuid[];
BEGIN
    -- Whatever the caller's session has set there.
    PERFORM set_config('opsconsole.checked_queue', '', true);
    PERFORM require_read_committed();
    -- One at a time with retry_tasks, which says why.
    PERFORM pg_advisory_xact_lock(hashtextextended('retry_tasks', 0));
    PERFORM FROM queues q ORDER BY q.name FOR KEY SHARE;
    -- KEY SHARE holds off the archive, so that what is found here is not missed there.
    v_missing := ARRAY(
        SELECT unnest(v_ids)
        EXCEPT SELECT l.id FROM (SELECT t.id FROM tasks t WHERE t.id = ANY (v_ids) ORDER BY t.id FOR KEY SHARE) l);
    PERFORM plan_for(cardinality(p_ids));
    RETURN QUERY
    WITH source AS MATERIALIZED (
        SELECT t.id, t.status, t.queue, t.type, t.payload, t.priority, t.tenant_id, t.dedupe_key, t.max_attempts,
               t.timeout, t.correlation_id
          FROM tasks t WHERE t.id = ANY (v_ids)
        UNION ALL
        (SELECT DISTINCT ON (a.id) a.id, a.status, a.queue, a.type, a.payload, a.priority, a.tenant_id, a.dedupe_key,
                a.max_attempts, a.timeout, a.correlation_id
           FROM tasks_archive a WHERE a.id = ANY (v_missing) ORDER BY a.id, a.completed_at DESC)
    ), judged AS MATERIALIZED (
        SELECT s.*, r.id AS asked, r.new_id, CASE
                   WHEN s.status IS NULL THEN 'it does not exist'
                   WHEN s.status <> 'completed' THEN 'it is ' || s.status || ', not completed'
                   WHEN q.name IS NULL THEN 'its queue ' || s.queue || ' no longer exists' END AS note
          FROM unnest(v_ids, v_new) r(id, new_id) LEFT JOIN source s ON s.id = r.id LEFT JOIN queues q ON q.name = s.queue
    ), made AS (
        INSERT INTO tasks (id, queue, type, payload, priority, tenant_id, dedupe_key, max_attempts, timeout, correlation_id)
        SELECT j.new_id, j.queue, j.type, j.payload, j.priority, j.tenant_id, j.dedupe_key, j.max_attempts, j.timeout,
               coalesce(j.correlation_id, j.id::text)
          FROM judged j WHERE j.note IS NULL ORDER BY j.id
        ON CONFLICT (coalesce(tenant_id, ''), type, dedupe_key)
            WHERE dedupe_key IS NOT NULL AND status IN ('blocked', 'scheduled', 'pending', 'processing')
            DO NOTHING
        RETURNING tasks.id)
    SELECT j.asked, CASE WHEN m.id IS NULL THEN 'skipped' ELSE 'done' END, coalesce(j.status, ''), coalesce(j.status, ''),
           coalesce(j.note, m.id::text, 'another live task holds its dedupe key ' || j.dedupe_key)
      FROM judged j LEFT JOIN made m ON m.id = j.new_id ORDER BY j.asked;
    PERFORM plan_for(1);
    PERFORM assign_rounds(v_new);
    PERFORM wake_queues_of(v_new);
END
$$;
