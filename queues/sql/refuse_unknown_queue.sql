-- A task's queue exists: the promise of a foreign key, without its query for every row. A verb that has
-- looked its queue up and locked it says so for its transaction (know_queue); the trigger's WHEN clause
-- then passes the row in C. Any other writer, such as a bare INSERT, comes here.
CREATE OR REPLACE FUNCTION refuse_unknown_queue() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    PERFORM FROM queues q WHERE q.name = NEW.queue FOR KEY SHARE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'queue "%" does not exist', NEW.queue
            USING ERRCODE = 'foreign_key_violation', CONSTRAINT = 'tasks_queue_exists', TABLE = 'tasks', SCHEMA = 'public',
                  HINT = 'Existing queues: ' || coalesce((SELECT string_agg(q.name, ', ' ORDER BY q.name) FROM queues q), 'none')
                         || '. Create it in the console, or name it in QUEUE_NAMES and migrate.';
    END IF;
    RETURN NULL;
END
$$;

CREATE OR REPLACE TRIGGER tasks_queue_exists
AFTER INSERT OR UPDATE OF queue ON tasks FOR EACH ROW
WHEN (NEW.queue IS DISTINCT FROM current_setting('opsconsole.known_queue', true))
EXECUTE FUNCTION refuse_unknown_queue();
