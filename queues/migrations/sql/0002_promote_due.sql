-- Makes up to p_limit scheduled tasks whose time has come pending, and wakes the workers of their
-- queues. Gives how many. Safe to run at once in every worker.
CREATE OR REPLACE FUNCTION promote_due(p_limit integer DEFAULT 500) RETURNS integer
LANGUAGE plpgsql AS $$
DECLARE
    v_count integer := 0;
    v_queue text;
    v_n integer;
    v_now timestamptz := clock_timestamp();  -- as a variable: a volatile call cannot bound an index scan
    v_next timestamptz;
BEGIN
    -- The head of the index, not EXISTS: expecting many hits, the planner would scan the table for one.
    SELECT t.run_at INTO v_next FROM tasks t WHERE t.status = 'scheduled' ORDER BY t.run_at, t.id LIMIT 1;
    IF v_next IS NULL OR v_next > v_now THEN
        RETURN 0;
    END IF;
    FOR v_queue, v_n IN
        WITH due AS (
            UPDATE tasks t SET status = 'pending', updated_at = clock_timestamp()
             WHERE t.id = ANY (ARRAY(SELECT s.id FROM tasks s
                                      WHERE s.status = 'scheduled' AND s.run_at <= v_now
                                      ORDER BY s.run_at, s.id LIMIT p_limit FOR UPDATE SKIP LOCKED))
            RETURNING t.queue)
        SELECT d.queue, count(*) FROM due d GROUP BY d.queue
    LOOP
        v_count := v_count + v_n;
        PERFORM wake_workers(v_queue);
    END LOOP;
    RETURN v_count;
END
$$;
