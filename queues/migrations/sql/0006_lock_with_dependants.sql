-- Locks tasks together with those that wait on them, in id order: the one order in which every verb
-- locks, so that verbs over overlapping tasks queue up instead of deadlocking.
-- Sequential scans are off because a plan made for popular predecessors would scan all edges to find
-- that others have none. Error 0A000 for an isolation level other than READ COMMITTED: a snapshot
-- older than the locks would overlook a dependant enqueued in between, which then waits for ever.
CREATE OR REPLACE FUNCTION lock_with_dependants(p_ids uuid[]) RETURNS void
LANGUAGE plpgsql SET enable_seqscan = off SET jit = off AS $$
DECLARE
    v_ids uuid[] := p_ids;
BEGIN
    PERFORM require_read_committed();
    IF EXISTS (SELECT FROM task_dependencies d WHERE d.predecessor_id = ANY (p_ids) AND d.outcome IS NULL) THEN
        v_ids := ARRAY(
            WITH RECURSIVE reach(id) AS (
                SELECT unnest(p_ids)
                UNION
                SELECT d.task_id FROM reach r JOIN task_dependencies d ON d.predecessor_id = r.id AND d.outcome IS NULL)
            SELECT r.id FROM reach r);
    END IF;
    PERFORM FROM tasks t WHERE t.id = ANY (v_ids) ORDER BY t.id FOR NO KEY UPDATE;
END
$$;
