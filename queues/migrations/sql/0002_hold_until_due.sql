-- A pending row whose run_at lies ahead becomes scheduled, also when a foreign client writes it
-- with a bare INSERT. Only such rows enter this function: the trigger's WHEN clause runs in C.
CREATE OR REPLACE FUNCTION hold_until_due() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    NEW.status := 'scheduled';
    RETURN NEW;
END
$$;

CREATE OR REPLACE TRIGGER tasks_hold_until_due
BEFORE INSERT OR UPDATE OF status, run_at ON tasks FOR EACH ROW
WHEN (NEW.status = 'pending' AND NEW.run_at > clock_timestamp())
EXECUTE FUNCTION hold_until_due();
