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
    v_queues queues[];
    v_limited text[];
    v_locked text[];
    v_due timestamptz;
    v_kind text;
    v_status text;
    v_idle boolean;
    q queues;
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        PERFORM require_read_committed();
    END IF;
    -- In one statement: each costs a lone claim as much as the search for its task.
    SELECT w.kind, w.status, w.idle_since IS NOT NULL, x.queues, x.limited,
           (SELECT run_at FROM tasks WHERE status = 'scheduled' ORDER BY run_at, id LIMIT 1)
      INTO v_kind, v_status, v_idle, v_queues, v_limited, v_due
      FROM (SELECT array_agg(n ORDER BY coalesce(array_position(p_queues, n.name), 0), n.name) AS queues,
                   array_agg(n.name) FILTER (WHERE n.max_concurrent IS NOT NULL OR n.max_per_tenant IS NOT NULL
                                                OR n.rate_limit IS NOT NULL OR p_tenant_cap IS NOT NULL) AS limited
              FROM queues n WHERE p_queues IS NULL OR n.name = ANY (p_queues)) x
      LEFT JOIN workers w ON w.id = p_worker;
    IF v_kind IS DISTINCT FROM 'process' OR v_status <> 'alive' THEN
        IF seat_worker(p_worker) <> 'alive' THEN
            RETURN;
        END IF;
    END IF;
    IF v_due <= clock_timestamp() THEN
        PERFORM promote_due();
    END IF;
    IF v_limited IS NOT NULL THEN
        -- Limited queues are locked by name, whatever order the caller tries them in: else two deadlock.
        -- Those without work stay unlocked, so that claimers of other queues do not wait for each other.
        v_locked := ARRAY(
            SELECT name FROM queues
             WHERE name = ANY (v_limited)
               AND (SELECT id FROM tasks WHERE queue = name AND status = 'pending'
                     ORDER BY queue, priority DESC, round, run_at, id LIMIT 1) IS NOT NULL
             ORDER BY name FOR NO KEY UPDATE);
        -- The wait for those rows may have outlived the worker.
        IF v_locked <> '{}' AND (SELECT status FROM workers WHERE id = p_worker) = 'gone' THEN
            RETURN;
        END IF;
    END IF;
    FOREACH q IN ARRAY coalesce(v_queues, '{}') LOOP
        EXIT WHEN v_left = 0;
        IF q.name = ANY (v_limited) THEN
            CONTINUE WHEN q.name <> ALL (v_locked);
            v_ids := pick_limited(q.name, v_left, p_tenants, p_tenant_cap);
        ELSIF q.paused AND (q.paused_until IS NULL OR q.paused_until > clock_timestamp()) THEN
            CONTINUE;
        ELSE
            v_ids := pick_pending(q.name, v_left, p_tenants);
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
    IF v_left < p_limit AND (v_idle OR v_kind IS DISTINCT FROM 'process') THEN
        UPDATE workers SET idle_since = NULL WHERE id = p_worker AND idle_since IS NOT NULL;
    END IF;
END
$$;
