-- enqueue_task under the name and with the two arguments that existing callers use; gives the id.
CREATE OR REPLACE FUNCTION create_task(type text, payload jsonb DEFAULT '{}') RETURNS SETOF uuid
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
SELECT e.id FROM enqueue_task(type, payload) e
$$;
