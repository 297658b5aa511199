-- A pending row whose run_at lies ahead becomes scheduled, also when a foreign client writes it with a
-- bare INSERT or UPDATE. Only such rows enter this function: the triggers' WHEN clauses run in C. For an
-- update the trigger fires afterwards, since one before it would lock each row once more.
CREATE OR REPLACE FUNCTION hold_until_due() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    IF TG_WHEN = 'BEFORE' THEN
        NEW.status := 'scheduled';
        RETURN NEW;
    END IF;
    UPDATE tasks t SET status = 'scheduled' WHERE t.id = NEW.id AND t.status = 'pending';
    RETURN NULL;
END
$$;

CREATE OR REPLACE TRIGGER tasks_hold_until_due
BEFORE INSERT ON tasks FOR EACH ROW
WHEN (NEW.status = 'pending' AND NEW.run_at > clock_timestamp())
EXECUTE FUNCTION hold_until_due();

CREATE OR REPLACE TRIGGER tasks_hold_updated_until_due
AFTER UPDATE OF status, run_at ON tasks FOR EACH ROW
WHEN (NEW.status = 'pending' AND NEW.run_at > clock_timestamp())
EXECUTE FUNCTION hold_until_due();
