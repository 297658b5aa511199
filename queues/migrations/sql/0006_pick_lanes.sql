-- Locks up to p_limit pending tasks of a queue, no more of each tenant than p_cap less those it has
-- running, and gives their ids. The caller holds the queue's row locked, so the counts stay true.
-- The first thousand tasks usually are enough; where tenants at their cap fill those, each tenant's
-- lane is looked at, so that none of them hides the others.
CREATE OR REPLACE FUNCTION pick_lanes(p_queue text, p_limit integer, p_tenants text[], p_cap integer) RETURNS uuid[]
LANGUAGE plpgsql AS $$
DECLARE
    v_picked uuid[];
    v_seen integer := 0;
    v_window constant integer := 1000;
BEGIN
    IF p_tenants IS NULL THEN
        WITH ahead AS MATERIALIZED (
            SELECT t.id, coalesce(t.tenant_id, '') AS tenant, row_number() OVER () AS n FROM (
                SELECT * FROM tasks s WHERE s.queue = p_queue AND s.status = 'pending'
                 ORDER BY s.queue, s.priority DESC, s.round, s.run_at, s.id LIMIT v_window) t
        ), ranked AS (
            SELECT a.id, a.n, a.tenant, row_number() OVER (PARTITION BY a.tenant ORDER BY a.n) AS place FROM ahead a)
        SELECT ARRAY(SELECT k.id FROM ranked k LEFT JOIN (
                        SELECT coalesce(r.tenant_id, '') AS tenant, count(*) AS running FROM tasks r
                         WHERE r.queue = p_queue AND r.status = 'processing' GROUP BY 1) r ON r.tenant = k.tenant
                      WHERE k.place <= p_cap - coalesce(r.running, 0) ORDER BY k.n LIMIT p_limit),
               (SELECT count(*) FROM ahead)
          INTO v_picked, v_seen;
    END IF;
    IF p_tenants IS NOT NULL OR (cardinality(v_picked) < p_limit AND v_seen = v_window) THEN
        v_picked := ARRAY(
            WITH RECURSIVE lanes(tenant) AS (
                (SELECT coalesce(t.tenant_id, '') FROM tasks t
                  WHERE t.queue = p_queue AND t.status = 'pending' AND (t.tenant_id IS NOT NULL OR t.round > 0)
                  ORDER BY coalesce(t.tenant_id, '') LIMIT 1)
                UNION ALL
                SELECT (SELECT coalesce(t.tenant_id, '') FROM tasks t
                         WHERE t.queue = p_queue AND t.status = 'pending' AND (t.tenant_id IS NOT NULL OR t.round > 0)
                           AND coalesce(t.tenant_id, '') > l.tenant
                         ORDER BY coalesce(t.tenant_id, '') LIMIT 1)
                  FROM lanes l WHERE l.tenant IS NOT NULL)
            SELECT f.id FROM (
                SELECT i.* FROM lanes l, LATERAL (
                    SELECT t.id, t.priority, t.round, t.run_at FROM tasks t
                     WHERE t.queue = p_queue AND t.status = 'pending' AND coalesce(t.tenant_id, '') = l.tenant
                       AND (t.tenant_id IS NOT NULL OR t.round > 0)
                     ORDER BY t.priority DESC, t.round, t.run_at, t.id
                     LIMIT greatest(0, least(p_limit, p_cap - (
                        SELECT count(*) FROM tasks r WHERE r.queue = p_queue AND r.status = 'processing'
                           AND r.tenant_id = l.tenant)))) i
                 WHERE l.tenant <> '' AND (p_tenants IS NULL OR l.tenant = ANY (p_tenants))
                UNION ALL
                -- Those without a tenant stand in no lane of their own.
                (SELECT t.id, t.priority, t.round, t.run_at FROM tasks t
                  WHERE t.queue = p_queue AND t.status = 'pending' AND coalesce(t.tenant_id, '') = '' AND p_tenants IS NULL
                  ORDER BY t.queue, t.priority DESC, t.round, t.run_at, t.id
                  LIMIT greatest(0, least(p_limit, p_cap - (
                    SELECT count(*) FROM tasks r WHERE r.queue = p_queue AND r.status = 'processing' AND coalesce(r.tenant_id, '') = ''))))) f
             ORDER BY f.priority DESC, f.round, f.run_at, f.id LIMIT p_limit);
    END IF;
    RETURN ARRAY(SELECT t.id FROM tasks t WHERE t.id = ANY (v_picked) AND t.status || '' = 'pending' AND t.queue = p_queue
                  ORDER BY t.id FOR UPDATE SKIP LOCKED);
END
$$;
