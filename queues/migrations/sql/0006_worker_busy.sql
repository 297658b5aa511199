-- The opposite of worker_idle: p_worker has no room, so that enqueuers need not notify it. A claim that
-- gets two tasks or more says the same.
CREATE OR REPLACE FUNCTION worker_busy(p_worker text) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
UPDATE workers SET idle_since = NULL WHERE id = p_worker AND idle_since IS NOT NULL
$$;
