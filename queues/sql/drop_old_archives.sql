-- Drops up to p_limit of the oldest days of the archive that ended longer ago than every queue's keep_for,
-- with the dependencies of their tasks. Gives how many. Safe to call at once in every worker. A day
-- whose locks are not free within 200 ms is left to a later call.
CREATE OR REPLACE FUNCTION drop_old_archives(p_limit integer DEFAULT 1) RETURNS integer
LANGUAGE plpgsql SET lock_timeout = '200ms' AS $$
DECLARE
    v_until constant timestamptz := clock_timestamp() - (SELECT max(q.keep_for) FROM queues q);
    v_name text;
    v_dropped integer := 0;
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtextextended('tasks_archive', 0)) THEN
        RETURN 0;
    END IF;
    DELETE FROM tasks_archive_default d WHERE d.completed_at < v_until;
    FOR v_name IN
        SELECT d.partition FROM archive_days() d
         WHERE (d.day + interval '1 day') AT TIME ZONE 'UTC' <= v_until ORDER BY d.day LIMIT p_limit
    LOOP
        BEGIN
            EXECUTE format('DELETE FROM task_dependencies d USING %I a WHERE d.task_id = a.id', v_name);
            EXECUTE format('DROP TABLE %I', v_name);
        EXCEPTION WHEN lock_not_available THEN
            RETURN v_dropped;
        END;
        v_dropped := v_dropped + 1;
    END LOOP;
    RETURN v_dropped;
END
$$;
