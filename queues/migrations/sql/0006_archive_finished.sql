-- Moves up to about p_limit finished tasks, oldest first, whole into tasks_archive: failed ones after
-- their queue's keep_failed, others after its archive_after. Gives how many; fewer than p_limit when
-- nothing more is due. Safe to call at once in every worker: one works, the others get 0.
-- A task that someone has locked, or that others still wait on, stays for a later pass.
-- A mark remembers for a day how far the queues with one and the same time were looked through. Without
-- it each call would walk again over the tasks that other queues keep longer, and over dead entries
-- while a transaction pins the vacuum horizon. The row comparison lets the scan begin at the mark.
CREATE OR REPLACE FUNCTION archive_finished(p_limit integer DEFAULT 5000) RETURNS integer
LANGUAGE plpgsql SET enable_seqscan = off SET jit = off SET plan_cache_mode = force_custom_plan AS $$
DECLARE
    v_today constant date := clock_timestamp() AT TIME ZONE 'UTC';
    v_nil constant uuid := '00000000-0000-0000-0000-000000000000';
    v_columns constant text := task_columns();
    v_group record;
    v_from record;
    v_to record;
    v_full boolean;
    v_count integer;
    v_moved integer := 0;
    v_looked integer := 0;
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtextextended('tasks_archive', 0)) THEN
        RETURN 0;
    END IF;
    FOR v_group IN
        SELECT s.status, clock_timestamp() - g.time AS until, g.queues
          FROM unnest(ARRAY['completed', 'failed', 'cancelled']) s(status),
               LATERAL (SELECT CASE s.status WHEN 'failed' THEN q.keep_failed ELSE q.archive_after END AS time,
                               array_agg(q.name ORDER BY q.name) AS queues
                          FROM queues q GROUP BY 1) g
    LOOP
        SELECT coalesce(max(m.completed_at), '-infinity') AS at, coalesce((array_agg(m.id))[1], v_nil) AS id INTO v_from
          FROM archive_marks m WHERE m.status = v_group.status AND m.queues = v_group.queues AND m.day = v_today;
        LOOP
            SELECT t.completed_at AS at, t.id INTO v_to FROM tasks t
             WHERE t.status = v_group.status AND (t.completed_at, t.id) > (v_from.at, v_from.id)
               AND t.completed_at < v_group.until
             ORDER BY t.completed_at, t.id OFFSET p_limit - 1 LIMIT 1;
            v_full := FOUND;
            IF NOT v_full THEN
                SELECT v_group.until AS at, v_nil AS id INTO v_to;
            END IF;
            EXECUTE format(
                'WITH due AS MATERIALIZED (
                     SELECT t.ctid AS place FROM tasks t
                      WHERE t.status = %L AND (t.completed_at, t.id) > ($1, $2) AND (t.completed_at, t.id) <= ($3, $4)
                        AND t.queue = ANY ($5)
                        AND NOT EXISTS (SELECT FROM task_dependencies d WHERE d.predecessor_id = t.id AND d.outcome IS NULL)
                        FOR UPDATE OF t SKIP LOCKED
                 ), gone AS (
                     DELETE FROM tasks t WHERE t.ctid = ANY (ARRAY(SELECT d.place FROM due d)) RETURNING %s)
                 INSERT INTO tasks_archive (%2$s) SELECT %2$s FROM gone', v_group.status, v_columns)
                USING v_from.at, v_from.id, v_to.at, v_to.id, v_group.queues;
            GET DIAGNOSTICS v_count = ROW_COUNT;
            v_moved := v_moved + v_count;
            EXIT WHEN NOT v_full;
            v_from := v_to;
            INSERT INTO archive_marks AS m (status, queues, day, completed_at, id)
            VALUES (v_group.status, v_group.queues, v_today, v_to.at, v_to.id)
            ON CONFLICT (status, queues) DO UPDATE SET day = excluded.day, completed_at = excluded.completed_at, id = excluded.id;
            v_looked := v_looked + p_limit;
            IF v_moved >= p_limit OR v_looked >= 20 * p_limit THEN
                RETURN v_moved;
            END IF;
        END LOOP;
    END LOOP;
    DELETE FROM archive_marks m WHERE m.day < v_today;
    RETURN v_moved;
END
$$;
