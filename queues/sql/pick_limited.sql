-- pick_pending for a queue with limits, whose row the caller has locked in an earlier statement: no
-- more than its max_concurrent, its rate and, per tenant, its max_per_tenant and p_tenant_cap allow.
-- Counts what runs in this statement's snapshot, which sees all that earlier holders of the lock did.
CREATE OR REPLACE FUNCTION pick_limited(p_queue text, p_limit integer, p_tenants text[], p_tenant_cap integer) RETURNS uuid[]
LANGUAGE plpgsql AS $$
DECLARE
    v_now constant timestamptz := clock_timestamp();
    q queues;
    v_room integer := p_limit;
    v_tokens double precision;
    v_cap integer;
    v_picked uuid[];
BEGIN
    SELECT * INTO q FROM queues WHERE name = p_queue;
    IF q.paused AND (q.paused_until IS NULL OR q.paused_until > clock_timestamp()) THEN
        RETURN '{}';
    END IF;
    IF q.max_concurrent IS NOT NULL THEN
        v_room := least(v_room, q.max_concurrent
            - (SELECT count(*) FROM tasks t WHERE t.queue = p_queue AND t.status = 'processing')::integer);
    END IF;
    IF q.rate_limit IS NOT NULL THEN
        v_tokens := least(q.burst, q.tokens + q.rate_limit * extract(epoch FROM v_now - q.refilled_at));
        v_room := least(v_room, floor(v_tokens)::integer);
    END IF;
    IF v_room <= 0 THEN
        RETURN '{}';
    END IF;
    v_cap := least(q.max_per_tenant, p_tenant_cap);
    IF v_cap IS NULL THEN
        v_picked := pick_pending(p_queue, v_room, p_tenants);
    ELSE
        v_picked := pick_lanes(p_queue, v_room, p_tenants, v_cap);
    END IF;
    IF q.rate_limit IS NOT NULL THEN
        UPDATE queues SET tokens = v_tokens - cardinality(v_picked), refilled_at = v_now WHERE name = p_queue;
    END IF;
    RETURN v_picked;
END
$$;
