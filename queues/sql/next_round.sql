-- The round in which a new task of a fair queue is served: the one after the last waiting task of the
-- same tenant and priority, but not before the round that is being served now. Tasks without a round (0) do
-- not count: those from before the queue was fair, and those that are only now being given theirs.
CREATE OR REPLACE FUNCTION next_round(p_queue text, p_tenant_id text, p_priority integer) RETURNS bigint
LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off SET jit = off AS $$
DECLARE
    v_priority constant smallint := coalesce(p_priority, 0);
    v_tenant constant text := coalesce(p_tenant_id, '');
BEGIN
    RETURN greatest(
        1,
        (SELECT t.round FROM tasks t
          WHERE t.queue = p_queue AND t.status = 'pending' AND t.priority = v_priority AND t.round > 0
          ORDER BY t.queue, t.priority DESC, t.round, t.run_at, t.id LIMIT 1),
        (SELECT t.round + 1 FROM tasks t
          WHERE t.queue = p_queue AND t.status = 'pending' AND coalesce(t.tenant_id, '') = v_tenant
            AND t.priority = v_priority AND t.round > 0 AND (t.tenant_id IS NOT NULL OR t.round > 0)
          ORDER BY t.queue DESC, coalesce(t.tenant_id, '') DESC, t.priority, t.round DESC, t.run_at DESC, t.id DESC LIMIT 1));
END
$$;
