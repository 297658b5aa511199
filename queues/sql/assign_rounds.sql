-- Gives tasks that have just become pending their rounds, where their queue is fair: each tenant's in a
-- row, after those of it that wait already.
CREATE OR REPLACE FUNCTION assign_rounds(p_ids uuid[]) RETURNS void
LANGUAGE plpgsql SET enable_seqscan = off SET jit = off AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM queues q WHERE q.fair) THEN
        RETURN;
    END IF;
    -- What they had counts no more (next_round).
    UPDATE tasks t SET round = 0 FROM queues q
     WHERE t.id = ANY (p_ids) AND t.status || '' = 'pending' AND t.round > 0 AND q.name = t.queue AND q.fair;
    WITH mine AS MATERIALIZED (
        SELECT x.id, x.queue, coalesce(x.tenant_id, '') AS tenant, x.priority,
               row_number() OVER (PARTITION BY x.queue, coalesce(x.tenant_id, ''), x.priority ORDER BY x.run_at, x.id) AS place
          FROM tasks x JOIN queues q ON q.name = x.queue AND q.fair
         WHERE x.id = ANY (p_ids) AND x.status || '' = 'pending'),
    -- Asked once for each tenant: materialized, and no join that might ask anew for each task.
    begun AS MATERIALIZED (
        SELECT m.*, CASE WHEN m.place = 1 THEN next_round(m.queue, m.tenant, m.priority::integer) END AS first FROM mine m),
    given AS (
        SELECT b.id, max(b.first) OVER (PARTITION BY b.queue, b.tenant, b.priority) + b.place - 1 AS round FROM begun b)
    UPDATE tasks t SET round = g.round FROM given g WHERE t.id = g.id;
END
$$;
