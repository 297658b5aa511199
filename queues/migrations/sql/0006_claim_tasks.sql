-- Gives p_worker up to p_limit due tasks, trying p_queues in the order given (null: every queue by
-- name); no two callers get the same task. Within a queue: priority, then round (fair queues), then
-- oldest run_at. Each row carries its lease, which every later report must show. A paused queue gives
-- none. p_tenants: only tasks of these tenants. p_tenant_cap: at most so many processing per tenant,
-- beside the queue's own max_per_tenant; tasks without a tenant share one count.
-- A queue's caps and rate are exact under any number of claimers: its row is locked in one statement
-- and the running tasks are counted in a later one, whose snapshot sees every committed claim.
-- Its plans, and those of the functions it calls, are pinned: made once for any limit, along the indexes.
-- Errors: 55000 a worker declared gone, 0A000 an isolation level other than READ COMMITTED.
CREATE OR REPLACE FUNCTION claim_tasks(
    p_worker text, p_queues text[] DEFAULT NULL, p_limit integer DEFAULT 1, p_tenants text[] DEFAULT NULL,
    p_tenant_cap integer DEFAULT NULL
) RETURNS SETOF tasks
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off SET jit = off AS $$
#variable_conflict use_column
DECLARE
    v_left integer := greatest(p_limit, 0);
    v_ids uuid[];
    v_taken integer;
    v_queue text;
    v_locked text[];
    q queues;
BEGIN
    PERFORM require_read_committed();
    IF seat_worker(p_worker) <> 'alive' THEN
        RETURN;
    END IF;
    PERFORM promote_due();
    -- Limited queues are locked by name, whatever order the caller tries them in: else two deadlock.
    -- Those without work stay unlocked, so that claimers of other queues do not wait for each other.
    v_locked := ARRAY(
        SELECT name FROM queues
         WHERE (max_concurrent IS NOT NULL OR max_per_tenant IS NOT NULL OR rate_limit IS NOT NULL OR p_tenant_cap IS NOT NULL)
           AND (p_queues IS NULL OR name = ANY (p_queues))
           AND (SELECT id FROM tasks WHERE queue = name AND status = 'pending'
                 ORDER BY queue, priority DESC, round, run_at, id LIMIT 1) IS NOT NULL
         ORDER BY name FOR NO KEY UPDATE);
    FOREACH v_queue IN ARRAY coalesce(p_queues, ARRAY(SELECT name FROM queues ORDER BY name)) LOOP
        EXIT WHEN v_left = 0;
        SELECT * INTO q FROM queues WHERE name = v_queue;
        CONTINUE WHEN NOT FOUND OR (q.paused AND (q.paused_until IS NULL OR q.paused_until > clock_timestamp()));
        IF q.max_concurrent IS NULL AND q.max_per_tenant IS NULL AND q.rate_limit IS NULL AND p_tenant_cap IS NULL THEN
            v_ids := pick_pending(v_queue, v_left, p_tenants);
        ELSIF v_queue = ANY (v_locked) THEN
            v_ids := pick_limited(v_queue, v_left, p_tenants, p_tenant_cap);
        ELSE
            CONTINUE;
        END IF;
        CONTINUE WHEN v_ids = '{}';
        RETURN QUERY
        WITH claimed AS (
            UPDATE tasks t
               SET status = 'processing', lease = t.lease + 1, attempts = t.attempts + 1, worker_id = p_worker,
                   started_at = clock_timestamp(), updated_at = clock_timestamp()
             WHERE t.id = ANY (v_ids)
            RETURNING t.*)
        SELECT * FROM claimed ORDER BY priority DESC, round, run_at, id;
        GET DIAGNOSTICS v_taken = ROW_COUNT;
        v_left := v_left - v_taken;
    END LOOP;
    IF v_left < p_limit THEN
        UPDATE workers SET idle_since = NULL WHERE id = p_worker AND idle_since IS NOT NULL;
    END IF;
END
$$;
