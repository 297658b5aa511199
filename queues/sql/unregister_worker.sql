-- The last word of a worker that stops: what it still holds goes back uncharged, and it is gone.
-- Gives the ids given back. Safe to call twice.
CREATE OR REPLACE FUNCTION unregister_worker(p_worker text) RETURNS SETOF uuid
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    v_ids uuid[];
    v_leases bigint[];
BEGIN
    UPDATE workers w SET status = 'gone', idle_since = NULL WHERE w.id = p_worker;
    SELECT array_agg(t.id), array_agg(t.lease) INTO v_ids, v_leases
      FROM tasks t WHERE t.worker_id = p_worker AND t.status = 'processing';
    RETURN QUERY SELECT r.id FROM release_tasks(v_ids, v_leases) r WHERE r.outcome = 'recorded';
END
$$;
