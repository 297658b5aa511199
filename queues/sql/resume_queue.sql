-- Ends the pause of a queue and wakes its workers. Gives what was done (note: whose pause it was) or why
-- it was skipped.
CREATE OR REPLACE FUNCTION resume_queue(p_queue text)
RETURNS TABLE (queue text, outcome text, before text, after text, note text)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    v queues;
BEGIN
    PERFORM require_read_committed();
    SELECT * INTO v FROM queues q WHERE q.name = p_queue FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN QUERY SELECT p_queue, 'skipped', '', '', 'it does not exist';
    ELSIF NOT v.paused THEN
        RETURN QUERY SELECT p_queue, 'skipped', 'running', 'running', 'it is not paused';
    ELSE
        UPDATE queues q SET paused = false, paused_reason = '', paused_by = '', paused_at = NULL, paused_until = NULL
         WHERE q.name = p_queue;
        PERFORM wake_workers(p_queue);
        RETURN QUERY SELECT p_queue, 'done', 'paused', 'running', concat_ws(': ', nullif(v.paused_by, ''), nullif(v.paused_reason, ''));
    END IF;
END
$$;
