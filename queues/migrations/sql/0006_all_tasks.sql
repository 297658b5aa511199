-- Every task wherever it is: live and recently finished ones (tasks), and archived ones. One statement
-- sees a task that moves meanwhile once. Look a task up in tasks first: here each day's partition is
-- asked.
CREATE OR REPLACE VIEW all_tasks AS
SELECT false AS archived, t.id, t.queue, t.type, t.payload, t.status, t.priority, t.tenant_id, t.run_at, t.attempts,
       t.max_attempts, t.lease, t.worker_id, t.started_at, t.completed_at, t.created_at, t.updated_at,
       t.timeout, t.result, t.output_location, t.error, t.errors, t.error_fingerprint, t.progress,
       t.progress_note, t.waits_on, t.dedupe_key, t.round, t.correlation_id, t.lost
  FROM tasks t
UNION ALL
SELECT true, a.id, a.queue, a.type, a.payload, a.status, a.priority, a.tenant_id, a.run_at, a.attempts,
       a.max_attempts, a.lease, a.worker_id, a.started_at, a.completed_at, a.created_at, a.updated_at,
       a.timeout, a.result, a.output_location, a.error, a.errors, a.error_fingerprint, a.progress,
       a.progress_note, a.waits_on, a.dedupe_key, a.round, a.correlation_id, a.lost
  FROM tasks_archive a;
