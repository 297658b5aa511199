-- Wakes the workers of every queue in which one of these tasks is pending, once a queue.
CREATE OR REPLACE FUNCTION wake_queues_of(p_ids uuid[]) RETURNS void
LANGUAGE plpgsql SET enable_seqscan = off SET jit = off AS $$
BEGIN
    PERFORM wake_workers(q.queue)
       FROM (SELECT DISTINCT t.queue FROM tasks t WHERE t.id = ANY (p_ids) AND (t.status || '') = 'pending') q;
END
$$;
