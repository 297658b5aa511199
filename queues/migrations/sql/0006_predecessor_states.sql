-- The status of each of these tasks, live or archived, and a lock (FOR SHARE) on those in tasks until the
-- transaction ends: a predecessor that finishes now and the enqueue of what waits on it cannot pass each
-- other by. Ids that exist nowhere give no row.
CREATE OR REPLACE FUNCTION predecessor_states(p_ids uuid[]) RETURNS TABLE (id uuid, status text)
LANGUAGE plpgsql SET enable_seqscan = off SET jit = off AS $$
#variable_conflict use_column
DECLARE
    v_missing uuid[] := ARRAY(SELECT DISTINCT i FROM unnest(p_ids) i WHERE i IS NOT NULL);
    v_archived uuid[];
    v_statuses text[];
    v_back boolean;
BEGIN
    LOOP
        v_missing := ARRAY(
            SELECT unnest(v_missing)
            EXCEPT SELECT l.id FROM (SELECT t.id FROM tasks t WHERE t.id = ANY (v_missing) ORDER BY t.id FOR SHARE) l);
        EXIT WHEN cardinality(v_missing) = 0;
        SELECT array_agg(a.id), array_agg(a.status), bool_or(NOT a.archived) INTO v_archived, v_statuses, v_back
          FROM (SELECT DISTINCT ON (m.id) m.id, m.status, m.archived FROM all_tasks m WHERE m.id = ANY (v_missing)
                 ORDER BY m.id, m.archived, m.completed_at DESC) a;
        -- One that came back from the archive in this moment must be locked, too.
        EXIT WHEN v_back IS NOT TRUE;
    END LOOP;
    RETURN QUERY
    SELECT t.id, t.status FROM tasks t WHERE t.id = ANY (p_ids) AND t.id <> ALL (v_missing)
    UNION ALL
    SELECT a.id, a.status FROM unnest(v_archived, v_statuses) a(id, status);
END
$$;
