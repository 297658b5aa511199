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
    v_locked text[];
    v_worker text;
    v_idle boolean;
    v_hinted constant boolean := length(current_setting('opsconsole.claim_heads', true)) > 2;
    v_begun timestamptz;
    q record;
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        PERFORM require_read_committed();
    END IF;
    -- All that a claim must know in one statement: each costs a lone claim as much as the search for its task.
    FOR q IN
        SELECT n.name, n.paused AND (n.paused_until IS NULL OR n.paused_until > clock_timestamp()) AS paused,
               n.max_concurrent IS NOT NULL OR n.max_per_tenant IS NOT NULL OR n.rate_limit IS NOT NULL
               OR p_tenant_cap IS NOT NULL AS limited,
               CASE w.kind WHEN 'process' THEN w.status END AS worker, w.idle_since IS NOT NULL AS idle,
               (SELECT run_at FROM tasks WHERE status = 'scheduled' ORDER BY run_at, id LIMIT 1) AS due,
               (SELECT true FROM queues l
                 WHERE (p_queues IS NULL OR l.name = ANY (p_queues))
                   AND (l.max_concurrent IS NOT NULL OR l.max_per_tenant IS NOT NULL OR l.rate_limit IS NOT NULL
                        OR p_tenant_cap IS NOT NULL) LIMIT 1) AS any_limited
          FROM queues n LEFT JOIN workers w ON w.id = p_worker
         WHERE p_queues IS NULL OR n.name = ANY (p_queues)
         ORDER BY array_position(p_queues, n.name), n.name LOOP
        IF v_worker IS NULL THEN
            v_worker := coalesce(q.worker, 'ephemeral');
            v_idle := q.idle;
            EXIT WHEN v_worker <> 'alive' AND seat_worker(p_worker) <> 'alive';
            IF q.due <= clock_timestamp() THEN
                PERFORM promote_due();
            END IF;
            IF q.any_limited THEN
                -- Before anything is taken: what is taken must not wait for the locks of others.
                v_locked := lock_limited(p_queues, p_tenant_cap);
                -- The wait for those rows may have outlived the worker.
                EXIT WHEN v_locked <> '{}' AND (SELECT status FROM workers WHERE id = p_worker) = 'gone';
            END IF;
        END IF;
        EXIT WHEN v_left = 0;
        v_ids := NULL;
        IF q.limited THEN
            CONTINUE WHEN q.name <> ALL (v_locked);
            v_ids := pick_limited(q.name, v_left, p_tenants, p_tenant_cap);
        ELSIF q.paused THEN
            CONTINUE;
        ELSIF v_hinted OR v_left >= 100 OR p_tenants IS NOT NULL THEN
            v_ids := pick_pending(q.name, v_left, p_tenants);
        END IF;
        CONTINUE WHEN v_ids = '{}';
        v_begun := clock_timestamp();
        -- A small claim is picked and taken in one statement.
        RETURN QUERY
        WITH claimed AS (
            UPDATE tasks t
               SET status = 'processing', lease = t.lease + 1, attempts = t.attempts + 1, worker_id = p_worker,
                   started_at = clock_timestamp(), updated_at = clock_timestamp()
             WHERE t.id = ANY (coalesce(v_ids, ARRAY(
                SELECT s.id FROM tasks s WHERE v_ids IS NULL AND s.queue = q.name AND s.status = 'pending'
                 ORDER BY s.queue, s.priority DESC, s.round, s.run_at, s.id LIMIT v_left FOR UPDATE SKIP LOCKED)))
            RETURNING t.*)
        SELECT * FROM claimed ORDER BY priority DESC, round, run_at, id;
        GET DIAGNOSTICS v_taken = ROW_COUNT;
        v_left := v_left - v_taken;
        IF v_ids IS NULL AND clock_timestamp() - v_begun > interval '3 ms' + v_taken * interval '0.1 ms' THEN
            -- Was it the walk? If so, the next one begins where this one came to.
            PERFORM claim_heads(q.name, v_left);
        END IF;
    END LOOP;
    IF v_worker IS NULL THEN
        -- There is none of these queues. Who asks is told all the same when it is gone.
        PERFORM seat_worker(p_worker);
    END IF;
    -- Many tasks at once: enqueuers need not notify a worker that will look for more. One alone may be done before
    -- the next comes; a worker that is busy with it for longer says so itself (worker_busy).
    IF p_limit - v_left > 1 AND (v_idle OR v_worker = 'ephemeral') THEN
        UPDATE workers SET idle_since = NULL WHERE id = p_worker AND idle_since IS NOT NULL;
    END IF;
END
$$;
