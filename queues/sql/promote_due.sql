-- Makes up to p_limit scheduled tasks whose time has come pending, and wakes the workers of their
-- queues. Gives how many. Safe to run at once in every worker.
CREATE OR REPLACE FUNCTION promote_due(p_limit integer DEFAULT 500) RETURNS integer
LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off SET jit = off AS $$
DECLARE
    v_ids uuid[];
    v_queues text[];
    v_now timestamptz := clock_timestamp();  -- as a variable: a volatile call cannot bound an index scan
    v_next timestamptz;
BEGIN
    -- The head of the index, not EXISTS: expecting many hits, the planner would scan the table for one.
    SELECT t.run_at INTO v_next FROM tasks t WHERE t.status = 'scheduled' ORDER BY t.run_at, t.id LIMIT 1;
    IF v_next IS NULL OR v_next > v_now THEN
        RETURN 0;
    END IF;
    WITH due AS (
        UPDATE tasks t SET status = 'pending', updated_at = clock_timestamp()
         WHERE t.id = ANY (ARRAY(SELECT s.id FROM tasks s
                                  WHERE s.status = 'scheduled' AND s.run_at <= v_now
                                  ORDER BY s.run_at, s.id LIMIT p_limit FOR UPDATE SKIP LOCKED))
        RETURNING t.id, t.queue)
    SELECT coalesce(array_agg(d.id), '{}'), array_agg(DISTINCT d.queue) INTO v_ids, v_queues FROM due d;
    PERFORM assign_rounds(v_ids);
    PERFORM wake_workers(n) FROM unnest(v_queues) n;
    RETURN cardinality(v_ids);
END
$$;
