-- Looks a queue up and lets this transaction insert checked tasks into it without a check of each, until
-- opsconsole.checked_queue is emptied. The lock keeps the queue from being deleted meanwhile
-- (keep_used_queue). Error 23503 for a queue that does not exist.
CREATE OR REPLACE FUNCTION know_queue(p_queue text) RETURNS queues
LANGUAGE plpgsql AS $$
DECLARE
    q queues;
BEGIN
    LOCK TABLE tasks IN ROW EXCLUSIVE MODE;
    PERFORM require_queue(p_queue);
    SELECT * INTO q FROM queues WHERE name = p_queue;
    PERFORM set_config('opsconsole.checked_queue', p_queue, true);
    RETURN q;
END
$$;
