-- The rule that a row of tasks breaks, or null: what a status implies, and the limits of each value.
CREATE OR REPLACE FUNCTION task_fault(t tasks) RETURNS text
LANGUAGE plpgsql AS $$
BEGIN
    RETURN CASE
        WHEN NOT CASE t.status
            WHEN 'pending' THEN t.worker_id IS NULL AND t.completed_at IS NULL AND t.waits_on = 0
            WHEN 'scheduled' THEN t.worker_id IS NULL AND t.completed_at IS NULL AND t.waits_on = 0
            WHEN 'blocked' THEN t.worker_id IS NULL AND t.completed_at IS NULL AND t.waits_on > 0
            WHEN 'processing' THEN t.worker_id IS NOT NULL AND t.started_at IS NOT NULL AND t.completed_at IS NULL
                AND t.lease > 0 AND t.waits_on = 0
            WHEN 'completed' THEN t.completed_at IS NOT NULL AND t.waits_on = 0
            WHEN 'failed' THEN t.completed_at IS NOT NULL AND t.waits_on = 0
            WHEN 'cancelled' THEN t.completed_at IS NOT NULL AND t.waits_on = 0
            ELSE false END THEN 'tasks_status_agrees_with_the_rest'
        WHEN btrim(t.type, E' \t\n\r') = '' OR length(t.type) > 200 THEN 'tasks_type_1_to_200_characters'
        WHEN t.priority NOT BETWEEN -100 AND 100 THEN 'tasks_priority_range'
        WHEN t.attempts < 0 OR t.max_attempts NOT BETWEEN 1 AND 100 THEN 'tasks_attempts_range'
        WHEN t.run_at NOT BETWEEN '1970-01-01 00:00+00' AND '9999-01-01 00:00+00'
             OR t.created_at NOT BETWEEN '1970-01-01 00:00+00' AND '9999-01-01 00:00+00' THEN 'tasks_moments_in_calendar'
        WHEN t.timeout NOT BETWEEN '1 microsecond' AND '366 days' THEN 'tasks_timeout_range'
        WHEN jsonb_typeof(t.errors) <> 'array' THEN 'tasks_errors_is_an_array'
        WHEN t.progress NOT BETWEEN 0 AND 100 THEN 'tasks_progress_percent'
        WHEN length(t.dedupe_key) > 200 OR length(t.correlation_id) > 200 OR length(t.tenant_id) > 200
             OR length(t.worker_id) > 200 THEN 'tasks_keys_at_most_200_characters'
        WHEN jsonb_too_large(t.payload) THEN 'tasks_payload_at_most_1_mib'
        WHEN jsonb_too_large(t.result) THEN 'tasks_result_at_most_1_mib'
        END;
END
$$;
