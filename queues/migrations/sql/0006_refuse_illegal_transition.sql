-- Refuses a change of state that no verb makes, whoever writes. The trigger's WHEN clause runs in C,
-- so a legal update never enters this function, and it fires after the update, since a trigger before
-- it would lock each row once more. A lease grows by one at each claim and never shrinks.
CREATE OR REPLACE FUNCTION refuse_illegal_transition() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'illegal transition of task %: % -> % (lease % -> %)',
        OLD.id, OLD.status, NEW.status, OLD.lease, NEW.lease
        USING ERRCODE = 'check_violation',
              HINT = 'Change a task through its functions: claim_tasks, complete_tasks, fail_tasks, release_tasks, retry_tasks, requeue_tasks, cancel_tasks.';
END
$$;

CREATE OR REPLACE TRIGGER tasks_legal_transition
AFTER UPDATE OF status, lease ON tasks FOR EACH ROW
WHEN (NOT (CASE
    WHEN NEW.status = 'processing' AND OLD.status = 'pending' THEN NEW.lease = OLD.lease + 1
    WHEN NEW.lease <> OLD.lease THEN false
    WHEN OLD.status = 'processing' THEN NEW.status IN ('completed', 'failed', 'cancelled', 'pending', 'scheduled', 'processing')
    WHEN NEW.status = OLD.status THEN true
    WHEN OLD.status = 'blocked' THEN NEW.status IN ('pending', 'scheduled', 'cancelled')
    WHEN OLD.status = 'scheduled' THEN NEW.status IN ('pending', 'cancelled', 'completed', 'failed')
    WHEN OLD.status = 'pending' THEN NEW.status IN ('scheduled', 'cancelled', 'completed', 'failed')
    WHEN OLD.status IN ('failed', 'cancelled') THEN NEW.status IN ('pending', 'blocked')
    ELSE false
END))
EXECUTE FUNCTION refuse_illegal_transition();
