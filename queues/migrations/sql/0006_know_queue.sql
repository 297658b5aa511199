-- Looks a queue up, keeps it from being deleted until the transaction ends, and lets this transaction
-- insert tasks into it without asking again for each. Error 23503 for a queue that does not exist.
CREATE OR REPLACE FUNCTION know_queue(p_queue text) RETURNS queues
LANGUAGE plpgsql AS $$
DECLARE
    q queues;
BEGIN
    SELECT * INTO q FROM queues WHERE name = p_queue FOR KEY SHARE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'queue "%" does not exist', p_queue
            USING ERRCODE = 'foreign_key_violation',
                  HINT = 'Existing queues: ' || coalesce((SELECT string_agg(x.name, ', ' ORDER BY x.name) FROM queues x), 'none')
                         || '. Create it in the console, or name it in QUEUE_NAMES and migrate.';
    END IF;
    PERFORM set_config('opsconsole.known_queue', p_queue, true);
    RETURN q;
END
$$;
