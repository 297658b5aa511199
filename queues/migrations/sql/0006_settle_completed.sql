-- complete_tasks' change: completes those of the tasks that the caller holds by (id, lease), settles what
-- waited on them, and gives the ids it completed.
-- The plan is pinned to a loop over the reports in id order, each row fetched by id: that is the one
-- order in which every verb locks. The fence is tested on expressions that match no partial index: else
-- the planner walks the small index of running tasks with all its dead entries.
CREATE OR REPLACE FUNCTION settle_completed(p_ids uuid[], p_leases bigint[], p_results jsonb[], p_outputs text[]) RETURNS uuid[]
LANGUAGE plpgsql
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET plan_cache_mode = force_generic_plan SET jit = off AS $$
#variable_conflict use_column
DECLARE
    v_done uuid[];
    v_progress boolean;
BEGIN
    IF has_dependants(p_ids) THEN
        PERFORM lock_with_dependants(p_ids);
    END IF;
    IF p_results IS NULL AND p_outputs IS NULL THEN
        WITH done AS (
            UPDATE tasks t
               SET status = 'completed', completed_at = clock_timestamp(), updated_at = clock_timestamp(), error = NULL,
                   error_fingerprint = NULL
              FROM (SELECT * FROM unnest(p_ids, p_leases) u(id, lease) ORDER BY u.id) r
             WHERE t.id = r.id AND t.lease = r.lease AND (t.status || '') = 'processing'
            RETURNING t.id, t.progress)
        SELECT coalesce(array_agg(d.id), '{}'), count(d.progress) > 0 INTO v_done, v_progress FROM done d;
    ELSE
        WITH done AS (
            UPDATE tasks t
               SET status = 'completed', completed_at = clock_timestamp(), updated_at = clock_timestamp(), error = NULL,
                   error_fingerprint = NULL, result = r.result, output_location = coalesce(r.output, t.output_location)
              FROM (SELECT * FROM unnest(p_ids, p_leases, p_results, p_outputs) u(id, lease, result, output) ORDER BY u.id) r
             WHERE t.id = r.id AND t.lease = r.lease AND (t.status || '') = 'processing'
            RETURNING t.id, t.progress)
        SELECT coalesce(array_agg(d.id), '{}'), count(d.progress) > 0 INTO v_done, v_progress FROM done d;
    END IF;
    IF v_progress THEN
        UPDATE tasks t SET progress = 100 WHERE t.id = ANY (v_done) AND t.progress < 100;
    END IF;
    IF has_dependants(v_done) THEN
        PERFORM settle_dependants(v_done);
    END IF;
    RETURN v_done;
END
$$;
