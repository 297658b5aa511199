-- Whether any task waits on one of these.
-- Sequential scans are off because a plan made for popular predecessors would scan all edges to find
-- that others have none.
CREATE OR REPLACE FUNCTION has_dependants(p_ids uuid[]) RETURNS boolean
LANGUAGE plpgsql SET enable_seqscan = off SET plan_cache_mode = force_generic_plan SET jit = off AS $$
BEGIN
    RETURN EXISTS (SELECT FROM task_dependencies d WHERE d.predecessor_id = ANY (p_ids) AND d.outcome IS NULL);
END
$$;
