-- A queue that tasks name can be neither deleted nor renamed: the other half of a foreign key. The lock
-- waits for inserts on their way and holds up later ones for this rare moment.
CREATE OR REPLACE FUNCTION keep_used_queue() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    LOCK TABLE tasks IN SHARE ROW EXCLUSIVE MODE;
    IF EXISTS (SELECT FROM tasks t WHERE t.queue = OLD.name) THEN
        RAISE EXCEPTION 'queue "%" still has tasks', OLD.name
            USING ERRCODE = 'foreign_key_violation', CONSTRAINT = 'tasks_queue_exists', TABLE = 'tasks', SCHEMA = 'public',
                  HINT = 'Pause it, or wait until its tasks are archived.';
    END IF;
    RETURN CASE WHEN TG_OP = 'DELETE' THEN OLD ELSE NEW END;
END
$$;

CREATE OR REPLACE TRIGGER queues_kept_while_used
BEFORE DELETE OR UPDATE OF name ON queues FOR EACH ROW
EXECUTE FUNCTION keep_used_queue();
