-- Marks p_worker as waiting for work, so that enqueuers notify it. The caller commits, claims once
-- more, and only then waits.
CREATE OR REPLACE FUNCTION worker_idle(p_worker text) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
UPDATE workers SET idle_since = clock_timestamp() WHERE id = p_worker AND status = 'alive'
$$;
