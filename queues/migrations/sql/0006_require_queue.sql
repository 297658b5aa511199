-- Error 23503 with a hint when there is no such queue.
CREATE OR REPLACE FUNCTION require_queue(p_queue text) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM queues q WHERE q.name = p_queue;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'queue "%" does not exist', p_queue
            USING ERRCODE = 'foreign_key_violation', CONSTRAINT = 'tasks_queue_exists', TABLE = 'tasks', SCHEMA = 'public',
                  HINT = 'Existing queues: ' || coalesce((SELECT string_agg(q.name, ', ' ORDER BY q.name) FROM queues q), 'none')
                         || '. Create it in the console, or name it in QUEUE_NAMES and migrate.';
    END IF;
END
$$;
