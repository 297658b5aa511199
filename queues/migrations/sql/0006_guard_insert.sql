-- What no task may be, whoever writes it: a row that breaks a rule (task_fault) or names a queue that does
-- not exist is refused, and a pending one whose run_at lies ahead becomes scheduled.
-- A trigger and no constraints or foreign key: those are read and evaluated by every claim and finish (8 of
-- 48 microseconds a task in batches, a tenth of a single statement), this by writers other than our verbs
-- only. A verb that has checked the same says so by opsconsole.checked_queue; the WHEN clause passes its
-- rows in C.
CREATE OR REPLACE FUNCTION guard_insert() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    v_rule constant text := task_fault(NEW);
BEGIN
    IF v_rule IS NOT NULL THEN
        PERFORM refuse_task(v_rule);
    END IF;
    PERFORM require_queue(NEW.queue);
    IF NEW.status = 'pending' AND NEW.run_at > clock_timestamp() THEN
        NEW.status := 'scheduled';
    END IF;
    RETURN NEW;
END
$$;

CREATE OR REPLACE TRIGGER tasks_guard_insert
BEFORE INSERT ON tasks FOR EACH ROW
WHEN (NEW.queue IS DISTINCT FROM current_setting('opsconsole.checked_queue', true))
EXECUTE FUNCTION guard_insert();
