-- The operators' retry: failed or cancelled tasks become pending again with attempts 0; their error
-- history is kept. p_dependants: the tasks that were cancelled because of them come back too, blocked
-- until their predecessors complete. One whose dedupe key is taken, or whose predecessor stays failed,
-- is skipped, and so is what waits on it. Archived ones come back from the archive. Gives for each task what was done or why it was skipped.
CREATE OR REPLACE FUNCTION retry_tasks(p_ids uuid[], p_dependants boolean DEFAULT false)
RETURNS TABLE (id uuid, outcome text, before text, after text, note text)
LANGUAGE plpgsql SET enable_seqscan = off SET enable_nestloop = on SET jit = off SET plan_cache_mode = force_custom_plan AS $$
#variable_conflict use_column
DECLARE
    v_ids uuid[] := ARRAY(SELECT DISTINCT i FROM unnest(p_ids) i WHERE i IS NOT NULL ORDER BY i);
    v_before text[];
    v_notes text[];
    v_back uuid[];
BEGIN
    PERFORM require_read_committed();
    -- One at a time with run_again: two that bring the same dedupe keys to life in different orders would
    -- wait for each other.
    PERFORM pg_advisory_xact_lock(hashtextextended('retry_tasks', 0));
    IF p_dependants THEN
        v_ids := ARRAY(
            WITH RECURSIVE reach(id) AS (
                SELECT unnest(v_ids)
                UNION
                SELECT d.task_id FROM reach r JOIN task_dependencies d ON d.predecessor_id = r.id AND d.outcome = 'cancelled')
            SELECT r.id FROM reach r ORDER BY r.id);
    END IF;
    PERFORM unarchive_tasks(v_ids);
    -- With their predecessors: one that finishes meanwhile would not see that it is waited for again.
    PERFORM FROM tasks t
      WHERE t.id = ANY (v_ids || ARRAY(SELECT d.predecessor_id FROM task_dependencies d WHERE d.task_id = ANY (v_ids)))
      ORDER BY t.id FOR NO KEY UPDATE;
    PERFORM plan_for(cardinality(v_ids));
    LOOP
        WITH RECURSIVE asked AS MATERIALIZED (
            SELECT i.id, t.status, coalesce(t.status IN ('failed', 'cancelled'), false) AS legal
              FROM unnest(v_ids) i(id) LEFT JOIN tasks t ON t.id = i.id
        ), held_back AS MATERIALIZED (
            SELECT a.id, d.predecessor_id
              FROM asked a JOIN task_dependencies d ON d.task_id = a.id AND d.on_failure = 'cancel'
              LEFT JOIN tasks p ON p.id = d.predecessor_id
             WHERE a.legal AND d.predecessor_id NOT IN (SELECT b.id FROM asked b WHERE b.legal)
               AND coalesce(p.status, (SELECT o.status FROM tasks_archive o WHERE o.id = d.predecessor_id
                                        ORDER BY o.completed_at DESC LIMIT 1)) IN ('failed', 'cancelled')
        ), spoiled(id, predecessor_id, note) AS (
            (SELECT h.id, h.predecessor_id, NULL FROM held_back h
             UNION ALL
             SELECT c.id, NULL, c.note FROM dedupe_conflicts(ARRAY(
                 SELECT a.id FROM asked a WHERE a.legal AND a.id NOT IN (SELECT h.id FROM held_back h))) c)
            UNION
            -- OFFSET 0 and the scalar subquery keep a long chain to index look-ups, a step each.
            SELECT d.task_id, s.id, NULL
              FROM spoiled s, LATERAL (SELECT e.task_id FROM task_dependencies e
                                        WHERE e.predecessor_id = s.id AND e.on_failure = 'cancel' OFFSET 0) d
             WHERE (SELECT c.status FROM tasks c WHERE c.id = d.task_id) IN ('failed', 'cancelled')
        ), verdict AS (
            SELECT a.id, a.status, CASE
                       WHEN a.status IS NULL THEN absence(a.id)
                       WHEN NOT a.legal THEN 'it is ' || a.status || ', not failed or cancelled'
                       ELSE s.note END AS note
              FROM asked a LEFT JOIN (
                   SELECT s.id, coalesce(min(s.note), 'its predecessor ' || min(s.predecessor_id::text)
                                         || ' did not complete: retry that one, with its dependants') AS note
                     FROM spoiled s GROUP BY s.id) s ON s.id = a.id)
        SELECT array_agg(v.status ORDER BY v.id), array_agg(v.note ORDER BY v.id) INTO v_before, v_notes FROM verdict v;
        v_back := ARRAY(SELECT r.id FROM unnest(v_ids, v_notes) r(id, note) WHERE r.note IS NULL);
        BEGIN
            UPDATE task_dependencies d SET outcome = NULL FROM tasks p
             WHERE d.task_id = ANY (v_back) AND d.outcome IS NOT NULL AND p.id = d.predecessor_id
               AND (p.status NOT IN ('completed', 'failed', 'cancelled') OR p.id IN (SELECT unnest(v_back)));
            UPDATE tasks t
               SET status = CASE WHEN w.n > 0 THEN 'blocked' ELSE 'pending' END, waits_on = w.n,
                   attempts = 0, lost = 0, run_at = clock_timestamp(), completed_at = NULL, worker_id = NULL,
                   started_at = NULL, error = NULL, error_fingerprint = NULL, result = NULL, progress = NULL,
                   progress_note = NULL, updated_at = clock_timestamp()
              FROM (SELECT b.id, count(d.id) AS n
                      FROM unnest(v_back) b(id) LEFT JOIN task_dependencies d ON d.task_id = b.id AND d.outcome IS NULL
                     GROUP BY b.id) w
             WHERE t.id = w.id;
            EXIT;
        EXCEPTION WHEN unique_violation THEN
            -- An enqueue took one of the keys after the verdict, and has committed: the next verdict sees it.
            NULL;
        END;
    END LOOP;
    PERFORM plan_for(1);
    PERFORM assign_rounds(v_back);
    PERFORM wake_queues_of(v_back);
    PERFORM plan_for(cardinality(v_ids));
    RETURN QUERY
    SELECT r.id, CASE WHEN r.note IS NULL THEN 'done' ELSE 'skipped' END, coalesce(r.before, ''),
           coalesce(t.status, ''), coalesce(r.note, '')
      FROM unnest(v_ids, v_before, v_notes) r(id, before, note) LEFT JOIN tasks t ON t.id = r.id ORDER BY r.id;
END
$$;
