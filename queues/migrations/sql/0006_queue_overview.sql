-- How many tasks there are by status, operation (type) and queue, with the oldest and the newest. A
-- caller that is bound to projects sees those of its projects.
CREATE OR REPLACE VIEW queue_overview WITH (security_barrier) AS
SELECT t.status, t.type AS operation, t.queue, count(*) AS count,
       min(t.created_at) AS oldest_item, max(t.created_at) AS newest_item
  FROM tasks t
 WHERE (SELECT caller_projects()) IS NULL OR t.tenant_id = ANY ((SELECT caller_projects())::text[])
 GROUP BY t.status, t.type, t.queue
 ORDER BY t.status, t.type, t.queue;
