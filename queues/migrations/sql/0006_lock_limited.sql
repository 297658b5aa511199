-- Locks the rows of those queues among p_queues (null: all) that have a limit and a pending task, and gives
-- their names. By name, whatever order the caller tries them in: else two callers deadlock. Those without
-- work stay unlocked, so that claimers of other queues do not wait for each other. In PL/pgSQL, which keeps
-- its plan.
CREATE OR REPLACE FUNCTION lock_limited(p_queues text[], p_tenant_cap integer) RETURNS text[]
LANGUAGE plpgsql AS $$
BEGIN
    RETURN ARRAY(
        SELECT n.name FROM queues n
         WHERE (p_queues IS NULL OR n.name = ANY (p_queues))
           AND (n.max_concurrent IS NOT NULL OR n.max_per_tenant IS NOT NULL OR n.rate_limit IS NOT NULL OR p_tenant_cap IS NOT NULL)
           AND (SELECT t.id FROM tasks t WHERE t.queue = n.name AND t.status = 'pending'
                 ORDER BY t.queue, t.priority DESC, t.round, t.run_at, t.id LIMIT 1) IS NOT NULL
         ORDER BY n.name FOR NO KEY UPDATE);
END
$$;
