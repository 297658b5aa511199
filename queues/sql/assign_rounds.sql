-- Gives tasks that have just become pending their rounds, where their queue is fair: each tenant's in a
-- row, after those of it that wait already.
CREATE OR REPLACE FUNCTION assign_rounds(p_ids uuid[]) RETURNS void
LANGUAGE plpgsql SET enable_seqscan = off SET jit = off AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM queues q WHERE q.fair) THEN
        RETURN;
    END IF;
    UPDATE tasks t SET round = r.round
      FROM (SELECT n.id, l.first + row_number() OVER (PARTITION BY n.queue, n.tenant, n.priority ORDER BY n.run_at, n.id) - 1 AS round
              FROM (SELECT x.id, x.queue, coalesce(x.tenant_id, '') AS tenant, x.priority, x.run_at
                      FROM tasks x JOIN queues q ON q.name = x.queue AND q.fair
                     WHERE x.id = ANY (p_ids) AND x.status || '' = 'pending') n
              JOIN (SELECT y.queue, y.tenant, y.priority, next_round(y.queue, y.tenant, y.priority::integer, p_ids) AS first
                      FROM (SELECT DISTINCT x.queue, coalesce(x.tenant_id, '') AS tenant, x.priority
                              FROM tasks x WHERE x.id = ANY (p_ids)) y) l
                ON l.queue = n.queue AND l.tenant = n.tenant AND l.priority = n.priority) r
     WHERE t.id = r.id;
END
$$;
