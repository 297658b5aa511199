-- Moves archived tasks back into tasks as they were, under their id and lease, for a verb that acts on
-- them next: its following statements see them, and archive_finished leaves all p_ids alone until the
-- transaction ends. Gives how many came back; ids that are not archived, or whose queue no longer
-- exists, are passed over.
CREATE OR REPLACE FUNCTION unarchive_tasks(p_ids uuid[]) RETURNS integer
LANGUAGE plpgsql SET enable_seqscan = off SET jit = off AS $$
DECLARE
    v_missing uuid[];
    v_count integer;
BEGIN
    -- KEY SHARE holds off the archive's lock, but none of a verb's.
    v_missing := ARRAY(
        SELECT unnest(p_ids)
        EXCEPT SELECT l.id FROM (SELECT t.id FROM tasks t WHERE t.id = ANY (p_ids) ORDER BY t.id FOR KEY SHARE) l);
    IF cardinality(v_missing) = 0 THEN
        RETURN 0;
    END IF;
    -- An id that a caller brought twice may be archived twice: the later task comes back.
    EXECUTE format(
        'WITH newest AS MATERIALIZED (
             SELECT DISTINCT ON (a.id) a.id, a.completed_at FROM tasks_archive a JOIN queues q ON q.name = a.queue
              WHERE a.id = ANY ($1) ORDER BY a.id, a.completed_at DESC
         ), gone AS (
             DELETE FROM tasks_archive a USING newest n WHERE a.id = n.id AND a.completed_at = n.completed_at RETURNING a.*)
         INSERT INTO tasks (%1$s) SELECT %1$s FROM gone', task_columns())
        USING v_missing;
    GET DIAGNOSTICS v_count = ROW_COUNT;
    RETURN v_count;
END
$$;
