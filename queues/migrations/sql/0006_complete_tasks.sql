-- Records the success of tasks that the caller holds by (id, lease), in one statement, and releases
-- what waited on them. Gives for each: recorded, already (this lease completed it before: a repeated
-- report) or stale (another has it, or it was cancelled: throw the work away). p_quiet: gives only those
-- that were not recorded.
CREATE OR REPLACE FUNCTION complete_tasks(
    p_ids uuid[], p_leases bigint[], p_results jsonb[] DEFAULT NULL, p_outputs text[] DEFAULT NULL, p_quiet boolean DEFAULT false
) RETURNS TABLE (id uuid, outcome text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp SET plan_cache_mode = force_generic_plan SET jit = off AS $$
#variable_conflict use_column
DECLARE
    v_done uuid[];
BEGIN
    PERFORM require_read_committed();
    v_done := settle_completed(p_ids, p_leases, p_results, p_outputs);
    IF p_quiet AND cardinality(v_done) = cardinality(p_ids) THEN
        RETURN;
    END IF;
    RETURN QUERY
    SELECT r.id, CASE WHEN d.id IS NOT NULL THEN 'recorded'
                      WHEN t.lease = r.lease AND (t.status || '') = 'completed' THEN 'already' ELSE 'stale' END
      FROM unnest(p_ids, p_leases) r(id, lease) LEFT JOIN unnest(v_done) d(id) ON d.id = r.id LEFT JOIN tasks t ON t.id = r.id
     WHERE d.id IS NULL OR NOT p_quiet;
END
$$;
