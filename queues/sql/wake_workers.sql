-- Tells idle workers of p_queue, after the caller's COMMIT, that there is work. Silent when none is
-- idle: a NOTIFY in every commit costs more than half of the throughput. A missed one only delays,
-- since every worker also polls.
CREATE OR REPLACE FUNCTION wake_workers(p_queue text) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM workers w
                WHERE w.status = 'alive' AND w.idle_since IS NOT NULL
                  AND (w.queues IS NULL OR p_queue = ANY (w.queues))) THEN
        PERFORM pg_notify('queue_tasks', p_queue);
    END IF;
END
$$;
