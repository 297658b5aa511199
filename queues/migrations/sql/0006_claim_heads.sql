-- Where claims of a queue should begin, as {"rescan_at", "again_at", "at": {priority: [round, run_at, id]}}; null: at
-- the front of the index, as always when nothing pins the vacuum horizon; {}: nothing is pending. While a long transaction
-- does, the entries of tasks claimed before cannot be removed, and every claim would walk over them all.
-- A walk that takes longer than half a millisecond (3 ms for a small claim, which a cold start alone may
-- take longer) makes the session remember how far it came. That is a
-- hint in the session's own memory: a table would collect dead rows like the index itself. What lands
-- behind it (a late commit, a released task) is found by a walk from the front: every 2 s, or as often as
-- 5 % of the time allows, and by a claim that finds nothing else (again_at).
CREATE OR REPLACE FUNCTION claim_heads(p_queue text, p_limit integer) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    v_all jsonb := coalesce(nullif(current_setting('opsconsole.claim_heads', true), ''), '{}')::jsonb;
    v_heads jsonb := v_all -> p_queue;
    v_begun timestamptz := clock_timestamp();
    v_took interval;
    v_at jsonb;
    v record;
BEGIN
    IF v_begun < (v_heads ->> 'rescan_at')::timestamptz THEN
        RETURN v_heads;
    END IF;
    SELECT t.priority, t.round, t.run_at, t.id INTO v FROM tasks t
     WHERE t.queue = p_queue AND t.status = 'pending'
     ORDER BY t.queue, t.priority DESC, t.round, t.run_at, t.id LIMIT 1;
    v_took := clock_timestamp() - v_begun;
    IF v_took < (CASE WHEN p_limit < 100 THEN interval '3 ms' ELSE interval '0.5 ms' END) THEN
        IF v_heads IS NOT NULL THEN
            PERFORM set_config('opsconsole.claim_heads', (v_all - p_queue)::text, false);
        END IF;
        RETURN CASE WHEN v.id IS NULL THEN '{}'::jsonb END;
    END IF;
    v_at := coalesce(v_heads -> 'at', (
        -- The priorities in use: their removed entries lie before the first task that is left.
        SELECT jsonb_object_agg(d.priority, jsonb_build_array(d.round, d.run_at, d.id)) FROM (
            SELECT DISTINCT ON (r.priority) r.priority, r.round, r.run_at, r.id FROM (
                SELECT f.* FROM tasks f WHERE f.status = 'completed' ORDER BY f.completed_at DESC, f.id DESC LIMIT 1000) r
             WHERE r.queue = p_queue ORDER BY r.priority, r.round DESC, r.run_at DESC, r.id DESC) d), '{}');
    IF v.id IS NOT NULL THEN
        -- What this walk did not reach is walked anew when its turn comes.
        v_at := coalesce((SELECT jsonb_object_agg(o.key, o.value) FROM jsonb_each(v_at) o WHERE o.key::integer > v.priority), '{}')
                || jsonb_build_object(v.priority, jsonb_build_array(v.round, v.run_at, v.id));
    END IF;
    v_heads := jsonb_build_object(
        'rescan_at', clock_timestamp() + greatest(interval '2 s', 20 * v_took),
        'again_at', clock_timestamp() + CASE WHEN v_took < interval '5 ms' THEN interval '0' ELSE 20 * v_took END,
        'at', v_at);
    PERFORM set_config('opsconsole.claim_heads', (v_all || jsonb_build_object(p_queue, v_heads))::text, false);
    RETURN v_heads;
END
$$;
