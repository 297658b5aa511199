-- Moves this session's hints of a queue (claim_heads) to the last of the tasks just picked, per priority.
CREATE OR REPLACE FUNCTION move_heads(p_queue text, p_ids uuid[]) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_all jsonb;
    v_last jsonb;
BEGIN
    SELECT jsonb_object_agg(l.priority, jsonb_build_array(l.round, l.run_at, l.id)) INTO v_last FROM (
        SELECT DISTINCT ON (t.priority) t.priority, t.round, t.run_at, t.id FROM tasks t WHERE t.id = ANY (p_ids)
         ORDER BY t.priority, t.round DESC, t.run_at DESC, t.id DESC) l;
    v_all := nullif(current_setting('opsconsole.claim_heads', true), '')::jsonb;
    IF v_last IS NOT NULL AND v_all ? p_queue THEN
        PERFORM set_config('opsconsole.claim_heads',
                           jsonb_set(v_all, ARRAY[p_queue, 'at'], (v_all -> p_queue -> 'at') || v_last)::text, false);
    END IF;
END
$$;
