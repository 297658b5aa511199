-- A client that writes a final status straight into tasks, as service_role may, calls no verb: its
-- dependants are settled here. Only such a row enters this function: the WHEN clause runs in C.
CREATE OR REPLACE FUNCTION settle_direct_update() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    PERFORM require_read_committed();
    PERFORM settle_dependants(ARRAY[NEW.id]);
    RETURN NULL;
END
$$;

CREATE OR REPLACE TRIGGER tasks_settle_direct_update
AFTER UPDATE OF status ON tasks FOR EACH ROW
WHEN (NEW.status IN ('completed', 'failed', 'cancelled') AND OLD.status <> NEW.status AND current_user = 'service_role')
EXECUTE FUNCTION settle_direct_update();
