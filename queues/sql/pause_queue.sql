-- Pauses a queue: claims give none of its tasks from now on, until p_until (null: until it is resumed);
-- what runs goes on. One that is paused already gets the new reason and end. Gives what was done or why
-- it was skipped. Error 22023 for an end that has passed.
CREATE OR REPLACE FUNCTION pause_queue(
    p_queue text, p_reason text DEFAULT '', p_by text DEFAULT '', p_until timestamptz DEFAULT NULL
) RETURNS TABLE (queue text, outcome text, before text, after text, note text)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    v queues;
    v_before text;
BEGIN
    PERFORM require_read_committed();
    IF p_until <= clock_timestamp() THEN
        RAISE EXCEPTION 'The end of the pause has passed: give a later moment.' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    SELECT * INTO v FROM queues q WHERE q.name = p_queue FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN QUERY SELECT p_queue, 'skipped', '', '', 'it does not exist';
        RETURN;
    END IF;
    v_before := CASE WHEN v.paused AND (v.paused_until IS NULL OR v.paused_until > clock_timestamp())
                     THEN 'paused' ELSE 'running' END;
    UPDATE queues q
       SET paused = true, paused_reason = coalesce(p_reason, ''), paused_by = coalesce(p_by, ''), paused_until = p_until,
           paused_at = CASE WHEN v_before = 'paused' THEN q.paused_at ELSE clock_timestamp() END
     WHERE q.name = p_queue;
    RETURN QUERY SELECT p_queue, 'done', v_before, 'paused', '';
END
$$;
