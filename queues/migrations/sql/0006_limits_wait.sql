-- Whether due tasks of these queues (null: all) wait only for a limit, and in how many seconds the next
-- token of a rate limit comes (null where no rate limit is what they wait for). No row: nothing due waits
-- in a queue that is not paused.
CREATE OR REPLACE FUNCTION limits_wait(p_queues text[] DEFAULT NULL) RETURNS TABLE (next_token double precision)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp SET jit = off AS $$
BEGIN
    RETURN QUERY
    -- A token that is there already came this moment (0), or it is a cap that the queue waits for.
    SELECT min(greatest(q.wait, 0)) FILTER (WHERE q.wait > 0 OR q.max_concurrent IS NULL AND q.max_per_tenant IS NULL)
      FROM (SELECT *, (1 - tokens) / rate_limit - extract(epoch FROM clock_timestamp() - refilled_at)::double precision AS wait
              FROM queues) q
     WHERE (p_queues IS NULL OR q.name = ANY (p_queues))
       AND NOT (q.paused AND (q.paused_until IS NULL OR q.paused_until > clock_timestamp()))
       AND EXISTS (SELECT FROM tasks t WHERE t.queue = q.name AND t.status = 'pending')
    HAVING count(*) > 0;
END
$$;
