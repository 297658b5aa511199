-- pick_pending's walk over the priorities from p_high down to p_low.
CREATE OR REPLACE FUNCTION pick_between(p_queue text, p_high integer, p_low integer, p_limit integer) RETURNS uuid[]
LANGUAGE plpgsql AS $$
BEGIN
    RETURN ARRAY(SELECT t.id FROM tasks t
                  WHERE t.queue = p_queue AND t.status = 'pending' AND t.priority BETWEEN p_low AND p_high
                  ORDER BY t.queue, t.priority DESC, t.round, t.run_at, t.id LIMIT greatest(p_limit, 0) FOR UPDATE SKIP LOCKED);
END
$$;
