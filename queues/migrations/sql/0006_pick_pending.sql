-- Locks up to p_limit pending tasks of a queue, first in claim order, and gives their ids.
-- p_tenants: only theirs, found by the index of their lanes.
CREATE OR REPLACE FUNCTION pick_pending(p_queue text, p_limit integer, p_tenants text[] DEFAULT NULL, p_again boolean DEFAULT true) RETURNS uuid[]
LANGUAGE plpgsql AS $$
DECLARE
    v_heads jsonb;
    v_picked uuid[] := '{}';
    v_more uuid[];
    v_top integer := 100;
    v record;
BEGIN
    IF p_tenants IS NOT NULL THEN
        -- A few more than wanted of each, since others may hold some of them locked.
        FOR v IN SELECT l.id FROM unnest(p_tenants) n, LATERAL (
                    SELECT s.id, s.priority, s.round, s.run_at FROM tasks s
                     WHERE s.queue = p_queue AND coalesce(s.tenant_id, '') = n AND s.status = 'pending'
                       AND (s.tenant_id IS NOT NULL OR s.round > 0)
                     ORDER BY s.priority DESC, s.round, s.run_at, s.id LIMIT p_limit + 100) l
                  ORDER BY l.priority DESC, l.round, l.run_at, l.id LOOP
            EXIT WHEN cardinality(v_picked) >= p_limit;
            v_picked := v_picked || ARRAY(SELECT t.id FROM tasks t
                                           WHERE t.id = v.id AND t.status || '' = 'pending' AND t.queue = p_queue
                                             FOR UPDATE SKIP LOCKED);
        END LOOP;
        RETURN v_picked;
    END IF;
    v_heads := claim_heads(p_queue, p_limit);
    IF v_heads = '{}' THEN
        RETURN '{}';
    ELSIF v_heads IS NULL THEN
        RETURN ARRAY(SELECT t.id FROM tasks t WHERE t.queue = p_queue AND t.status = 'pending'
                      ORDER BY t.queue, t.priority DESC, t.round, t.run_at, t.id LIMIT p_limit FOR UPDATE SKIP LOCKED);
    END IF;
    FOR v IN SELECT e.key::integer AS priority, (e.value ->> 0)::bigint AS round, (e.value ->> 1)::timestamptz AS run_at,
                    (e.value ->> 2)::uuid AS id
               FROM jsonb_each(v_heads -> 'at') e ORDER BY e.key::integer DESC LOOP
        v_picked := v_picked || pick_between(p_queue, v_top, v.priority + 1, p_limit - cardinality(v_picked));
        v_more := ARRAY(SELECT t.id FROM tasks t
                         WHERE t.queue = p_queue AND t.status = 'pending' AND t.priority = v.priority
                           AND (t.round, t.run_at, t.id) >= (v.round, v.run_at, v.id)
                         ORDER BY t.queue, t.priority DESC, t.round, t.run_at, t.id
                         LIMIT p_limit - cardinality(v_picked) FOR UPDATE SKIP LOCKED);
        v_picked := v_picked || v_more;
        v_top := v.priority - 1;
    END LOOP;
    v_picked := v_picked || pick_between(p_queue, v_top, -100, p_limit - cardinality(v_picked));
    IF v_picked = '{}' AND p_again AND clock_timestamp() >= (v_heads ->> 'again_at')::timestamptz THEN
        -- Something may wait behind the hints. Who finds nothing has the time to look from the front.
        PERFORM set_config('opsconsole.claim_heads', (current_setting('opsconsole.claim_heads')::jsonb - p_queue)::text, false);
        RETURN pick_pending(p_queue, p_limit, p_tenants, false);
    END IF;
    PERFORM move_heads(p_queue, v_picked);
    RETURN v_picked;
END
$$;
