-- Makes the partitions of tasks_archive that are missing, one a UTC day: from the first there is (or
-- p_from, if that is earlier) to p_ahead days ahead. Gives how many. Rows of such a day that the default
-- partition took move to their place. Safe to call at once in every worker. A partition whose locks are
-- not free within 200 ms is left to a later call: until then the default partition takes its rows.
CREATE OR REPLACE FUNCTION make_archive_partitions(p_from date DEFAULT NULL, p_ahead integer DEFAULT 7) RETURNS integer
LANGUAGE plpgsql SET lock_timeout = '200ms' AS $$
DECLARE
    v_today constant date := clock_timestamp() AT TIME ZONE 'UTC';
    v_oldest constant date := (clock_timestamp() - (SELECT max(q.keep_for) FROM queues q)) AT TIME ZONE 'UTC';
    v_name text;
    v_role text;
    v_start timestamptz;
    v_end timestamptz;
    v_made integer := 0;
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtextextended('tasks_archive', 0)) THEN
        RETURN 0;
    END IF;
    FOR v_name, v_start, v_end IN
        SELECT 'tasks_archive_' || to_char(n.day, 'YYYYMMDD'), n.day AT TIME ZONE 'UTC', (n.day + interval '1 day') AT TIME ZONE 'UTC'
          FROM generate_series(
                   greatest(v_oldest, least(v_today, p_from, (SELECT min(d.day) FROM archive_days() d)))::timestamp,
                   (v_today + p_ahead)::timestamp, '1 day') n(day)
         WHERE n.day::date NOT IN (SELECT d.day FROM archive_days() d)
    LOOP
        BEGIN
            EXECUTE format('CREATE TABLE %I (LIKE tasks_archive INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING INDEXES INCLUDING STORAGE)', v_name);
            EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', v_name);
            -- What a hosting service grants by default on new tables is taken back.
            EXECUTE format('REVOKE ALL ON %I FROM PUBLIC', v_name);
            FOR v_role IN SELECT r.rolname FROM pg_roles r
                           WHERE r.rolname IN ('anon', 'authenticated', 'service_role', 'opsconsole_worker') LOOP
                EXECUTE format('REVOKE ALL ON %I FROM %I', v_name, v_role);
            END LOOP;
            EXECUTE format(
                'WITH gone AS (DELETE FROM tasks_archive_default d WHERE d.completed_at >= %L AND d.completed_at < %L RETURNING d.*)
                 INSERT INTO %I (%s) SELECT %4$s FROM gone', v_start, v_end, v_name, task_columns());
            -- Attached afterwards: PARTITION OF would hold up every reader and writer of the archive.
            EXECUTE format('ALTER TABLE tasks_archive ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', v_name, v_start, v_end);
        EXCEPTION WHEN lock_not_available THEN
            RETURN v_made;
        END;
        v_made := v_made + 1;
    END LOOP;
    RETURN v_made;
END
$$;
