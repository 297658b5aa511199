-- Refuses values that no task may have, whoever writes: the error names the rule as a constraint's does.
-- A trigger and no constraints, since constraints are evaluated at every claim and finish (8 of 48
-- microseconds a task), this only when one of these columns is written. Its WHEN clause runs in C.
CREATE OR REPLACE FUNCTION refuse_bad_task() RETURNS trigger
LANGUAGE plpgsql AS $$
DECLARE
    v_rule text := CASE
        WHEN NEW.type !~ '\S' OR length(NEW.type) > 200 THEN 'tasks_type_1_to_200_characters'
        WHEN NEW.priority NOT BETWEEN -100 AND 100 THEN 'tasks_priority_range'
        WHEN NEW.max_attempts NOT BETWEEN 1 AND 100 THEN 'tasks_attempts_range'
        WHEN NEW.run_at NOT BETWEEN '1970-01-01 00:00+00' AND '9999-01-01 00:00+00'
             OR NEW.created_at NOT BETWEEN '1970-01-01 00:00+00' AND '9999-01-01 00:00+00' THEN 'tasks_moments_in_calendar'
        WHEN NEW.timeout NOT BETWEEN '1 microsecond' AND '366 days' THEN 'tasks_timeout_range'
        WHEN jsonb_typeof(NEW.errors) <> 'array' THEN 'tasks_errors_is_an_array'
        WHEN NEW.progress NOT BETWEEN 0 AND 100 THEN 'tasks_progress_percent'
        WHEN greatest(length(NEW.dedupe_key), length(NEW.correlation_id), length(NEW.tenant_id), length(NEW.worker_id)) > 200
            THEN 'tasks_keys_at_most_200_characters'
        -- Stored by now, and compressed: the larger of the two is the one that was too large.
        WHEN octet_length(NEW.result::text) > octet_length(NEW.payload::text) THEN 'tasks_result_at_most_1_mib'
        ELSE 'tasks_payload_at_most_1_mib' END;
BEGIN
    RAISE EXCEPTION 'new row for relation "tasks" violates check constraint "%"', v_rule
        USING ERRCODE = 'check_violation', CONSTRAINT = v_rule, TABLE = 'tasks', SCHEMA = 'public';
END
$$;

CREATE OR REPLACE TRIGGER tasks_values
AFTER INSERT OR UPDATE OF type, priority, max_attempts, run_at, created_at, timeout, errors, progress, payload, result,
    dedupe_key, correlation_id, tenant_id ON tasks FOR EACH ROW
WHEN (NEW.type !~ '\S' OR length(NEW.type) > 200 OR NEW.priority NOT BETWEEN -100 AND 100
    OR NEW.max_attempts NOT BETWEEN 1 AND 100
    OR NEW.run_at NOT BETWEEN '1970-01-01 00:00+00' AND '9999-01-01 00:00+00'
    OR NEW.created_at NOT BETWEEN '1970-01-01 00:00+00' AND '9999-01-01 00:00+00'
    OR NEW.timeout NOT BETWEEN '1 microsecond' AND '366 days' OR jsonb_typeof(NEW.errors) <> 'array'
    OR NEW.progress NOT BETWEEN 0 AND 100 OR pg_column_size(NEW.payload) > 1048576 OR pg_column_size(NEW.result) > 1048576
    OR length(NEW.dedupe_key) > 200 OR length(NEW.correlation_id) > 200 OR length(NEW.tenant_id) > 200
    OR length(NEW.worker_id) > 200)
EXECUTE FUNCTION refuse_bad_task();
