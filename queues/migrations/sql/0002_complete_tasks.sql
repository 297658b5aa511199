-- Records the success of tasks that the caller holds by (id, lease), in one statement, and releases
-- what waited on them. Gives for each: recorded, already (this lease completed it before: a repeated
-- report) or stale (another has it, or it was cancelled: throw the work away).
-- The rows are fetched by id and the fence is tested on expressions that match no partial index:
-- else the planner walks the small index of running tasks with all its dead entries.
CREATE OR REPLACE FUNCTION complete_tasks(
    p_ids uuid[], p_leases bigint[], p_results jsonb[] DEFAULT NULL, p_outputs text[] DEFAULT NULL
) RETURNS TABLE (id uuid, outcome text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
#variable_conflict use_column
DECLARE
    v_done uuid[];
BEGIN
    PERFORM lock_with_dependants(p_ids);
    WITH done AS (
        UPDATE tasks t
           SET status = 'completed', completed_at = clock_timestamp(), updated_at = clock_timestamp(),
               result = r.result, output_location = coalesce(r.output, t.output_location), error = NULL,
               error_fingerprint = NULL,
               progress = CASE WHEN t.progress IS NOT NULL THEN 100 END
          FROM unnest(p_ids, p_leases, p_results, p_outputs) r(id, lease, result, output)
         WHERE t.id = r.id AND t.lease = r.lease AND (t.status || '') = 'processing'
        RETURNING t.id)
    SELECT coalesce(array_agg(d.id), '{}') INTO v_done FROM done d;
    PERFORM settle_dependants(v_done);
    RETURN QUERY
    SELECT r.id, CASE WHEN r.id = ANY (v_done) THEN 'recorded'
                      WHEN EXISTS (SELECT FROM tasks t WHERE t.id = r.id AND t.lease = r.lease AND (t.status || '') = 'completed')
                      THEN 'already' ELSE 'stale' END
      FROM unnest(p_ids, p_leases) r(id, lease);
END
$$;
