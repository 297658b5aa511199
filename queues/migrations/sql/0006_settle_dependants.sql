-- After the tasks p_ids reached a final outcome in this transaction: releases the tasks that waited on
-- them, or cancels them (and theirs in turn) where a predecessor did not complete and the edge says so.
-- A dependant never waits for ever. Wakes the workers of the queues that got work.
CREATE OR REPLACE FUNCTION settle_dependants(p_ids uuid[]) RETURNS void
LANGUAGE plpgsql SET enable_seqscan = off SET jit = off AS $$
#variable_conflict use_column
DECLARE
    v_wave uuid[] := p_ids;
    v_next uuid[];
    v_cancelled uuid[];
    v_pending uuid[] := '{}';
    v_ready uuid[];
    v_queue text;
BEGIN
    LOOP
        EXIT WHEN NOT EXISTS (SELECT FROM task_dependencies d
                               WHERE d.predecessor_id = ANY (v_wave) AND d.outcome IS NULL);
        PERFORM FROM tasks t
          WHERE t.id = ANY (ARRAY(SELECT d.task_id FROM task_dependencies d
                                   WHERE d.predecessor_id = ANY (v_wave) AND d.outcome IS NULL))
          ORDER BY t.id FOR NO KEY UPDATE;
        v_next := '{}';
        FOR v_queue, v_cancelled, v_ready IN
            WITH edges AS (
                UPDATE task_dependencies d
                   SET outcome = CASE WHEN p.status = 'completed' OR d.on_failure = 'run' THEN 'released' ELSE 'cancelled' END
                  FROM tasks p
                 WHERE d.predecessor_id = ANY (v_wave) AND d.outcome IS NULL AND p.id = d.predecessor_id
                RETURNING d.task_id, d.predecessor_id, d.outcome
            ), sums AS (
                SELECT e.task_id, count(*) AS settled,
                       (array_agg(e.predecessor_id) FILTER (WHERE e.outcome = 'cancelled'))[1] AS failed
                  FROM edges e GROUP BY e.task_id
            ), moved AS (
                UPDATE tasks t
                   SET status = CASE WHEN s.failed IS NOT NULL THEN 'cancelled'
                                     WHEN t.waits_on > s.settled THEN 'blocked'
                                     WHEN t.run_at > clock_timestamp() THEN 'scheduled' ELSE 'pending' END,
                       waits_on = CASE WHEN s.failed IS NOT NULL THEN 0 ELSE t.waits_on - s.settled END,
                       completed_at = CASE WHEN s.failed IS NOT NULL THEN clock_timestamp() END,
                       error = CASE WHEN s.failed IS NOT NULL THEN 'Predecessor ' || s.failed || ' did not complete.' END,
                       updated_at = clock_timestamp()
                  FROM sums s WHERE t.id = s.task_id AND (t.status || '') = 'blocked'
                RETURNING t.id, t.queue, t.status)
            SELECT m.queue, coalesce(array_agg(m.id) FILTER (WHERE m.status = 'cancelled'), '{}'),
                   coalesce(array_agg(m.id) FILTER (WHERE m.status = 'pending'), '{}')
              FROM moved m GROUP BY m.queue
        LOOP
            v_next := v_next || v_cancelled;
            v_pending := v_pending || v_ready;
            PERFORM wake_workers(v_queue);
        END LOOP;
        v_wave := v_next;
    END LOOP;
    IF v_pending <> '{}' THEN
        PERFORM assign_rounds(v_pending);
    END IF;
END
$$;
