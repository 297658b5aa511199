-- Refuses, whoever writes, a change of state that no verb makes and a row that breaks a rule (task_fault);
-- a pending row whose run_at lies ahead becomes scheduled. The trigger's WHEN clause passes claims and
-- completions in C; it is short because every statement reads it anew. It fires after the update, since a
-- trigger before it would lock each row once more. A lease grows by one at each claim and never shrinks.
CREATE OR REPLACE FUNCTION guard_update() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    v_rule constant text := task_fault(NEW);
BEGIN
    IF NOT (CASE
        WHEN OLD.status = 'pending' AND NEW.status = 'processing' THEN NEW.lease = OLD.lease + 1
        WHEN NEW.lease <> OLD.lease THEN false
        WHEN NEW.status = OLD.status THEN true
        WHEN OLD.status = 'processing' THEN NEW.status <> 'blocked'
        WHEN OLD.status = 'blocked' THEN NEW.status IN ('pending', 'scheduled', 'cancelled')
        WHEN OLD.status = 'scheduled' THEN NEW.status IN ('pending', 'cancelled', 'completed', 'failed')
        WHEN OLD.status = 'pending' THEN NEW.status IN ('scheduled', 'cancelled', 'completed', 'failed')
        WHEN OLD.status IN ('failed', 'cancelled') THEN NEW.status IN ('pending', 'blocked')
        ELSE false END) THEN
        RAISE EXCEPTION 'illegal transition of task %: % -> % (lease % -> %)',
            OLD.id, OLD.status, NEW.status, OLD.lease, NEW.lease
            USING ERRCODE = 'check_violation',
                  HINT = 'Change a task through its functions: claim_tasks, complete_tasks, fail_tasks, release_tasks, retry_tasks, requeue_tasks, release_held, rescue_tasks, cancel_tasks.';
    END IF;
    IF v_rule IS NOT NULL THEN
        PERFORM refuse_task(v_rule);
    END IF;
    IF NEW.queue <> OLD.queue THEN
        PERFORM require_queue(NEW.queue);
    END IF;
    IF NEW.status = 'pending' AND NEW.run_at > clock_timestamp() THEN
        UPDATE tasks t SET status = 'scheduled' WHERE t.id = NEW.id AND t.status || '' = 'pending';
    END IF;
    RETURN NULL;
END
$$;

CREATE OR REPLACE TRIGGER tasks_guard_update
AFTER UPDATE OF status, lease, worker_id, started_at, completed_at, waits_on ON tasks FOR EACH ROW
WHEN (NOT CASE OLD.status
    WHEN 'processing' THEN NEW.status = 'completed' AND NEW.lease = OLD.lease AND NEW.completed_at IS NOT NULL AND NEW.waits_on = 0
    WHEN 'pending' THEN NEW.status = 'processing' AND NEW.lease = OLD.lease + 1 AND NEW.worker_id IS NOT NULL
        AND NEW.started_at IS NOT NULL AND NEW.completed_at IS NULL
    ELSE false END)
EXECUTE FUNCTION guard_update();

CREATE OR REPLACE TRIGGER tasks_guard_values
AFTER UPDATE OF queue, type, priority, max_attempts, attempts, run_at, created_at, timeout, errors, progress, payload,
    result, dedupe_key, correlation_id, tenant_id ON tasks FOR EACH ROW
WHEN (OLD.status = NEW.status OR pg_column_size(NEW.result) > 10000)
EXECUTE FUNCTION guard_update();
