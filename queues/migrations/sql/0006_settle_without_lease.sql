-- For callers that hold no lease: gives a pending, scheduled or processing task the status p_status at
-- once and finally (failed is not tried again), and settles its dependants. pending on a processing task
-- releases it, attempt uncharged; processing keeps what is claimed and claims nothing. Gives false, and
-- changes nothing, where the task is blocked, settled, unknown or none of the caller's projects.
-- Error 22P02 for an id that is no uuid.
CREATE OR REPLACE FUNCTION settle_without_lease(
    p_task_id text, p_status text, p_output_location text DEFAULT NULL, p_reason text DEFAULT NULL
) RETURNS boolean
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    v_projects text[] := caller_projects();
    v_id uuid;
    v tasks;
    v_error jsonb;
BEGIN
    IF p_task_id !~* '^[0-9a-f]{8}(-?[0-9a-f]{4}){3}-?[0-9a-f]{12}$' THEN
        RAISE EXCEPTION 'p_task_id is no uuid: "%"', left(p_task_id, 100) USING ERRCODE = 'invalid_text_representation';
    END IF;
    v_id := p_task_id::uuid;
    IF NOT EXISTS (SELECT FROM tasks t WHERE t.id = v_id AND (v_projects IS NULL OR t.tenant_id = ANY (v_projects))) THEN
        RETURN false;
    END IF;
    PERFORM lock_with_dependants(ARRAY[v_id]);
    SELECT * INTO v FROM tasks t WHERE t.id = v_id;
    IF v.status IS NULL OR v.status NOT IN ('pending', 'scheduled', 'processing')
       OR (p_status = 'processing' AND v.status <> 'processing') THEN
        RETURN false;
    END IF;
    IF p_output_location IS NOT NULL THEN
        UPDATE tasks t SET output_location = p_output_location, updated_at = clock_timestamp() WHERE t.id = v_id;
    END IF;
    v_error := jsonb_build_object(
        'message', p_reason, 'fingerprint', left(regexp_replace(split_part(p_reason, E'\n', 1), '\d+', 'N', 'g'), 200));
    CASE
        WHEN p_status = 'cancelled' THEN
            PERFORM cancel_tasks(ARRAY[v_id], p_reason);
        WHEN p_status = 'pending' AND v.status = 'processing' THEN
            PERFORM release_tasks(ARRAY[v_id], ARRAY[v.lease]);
        WHEN p_status IN ('pending', 'processing') THEN
            NULL;
        WHEN p_status = 'completed' AND v.status = 'processing' THEN
            PERFORM complete_tasks(ARRAY[v_id], ARRAY[v.lease]);
        WHEN v.status = 'processing' THEN
            PERFORM fail_tasks(ARRAY[v_id], ARRAY[v.lease], ARRAY[v_error], NULL, ARRAY[true]);
        ELSE
            UPDATE tasks t
               SET status = p_status, completed_at = clock_timestamp(), updated_at = clock_timestamp(),
                   error = CASE WHEN p_status = 'failed' THEN left(p_reason, 4000) END,
                   error_fingerprint = CASE WHEN p_status = 'failed' THEN v_error ->> 'fingerprint' END,
                   errors = CASE WHEN p_status = 'failed'
                       THEN add_error(t.errors, attempt_record(t.attempts, NULL, NULL, v_error)) ELSE t.errors END
             WHERE t.id = v_id;
            PERFORM settle_dependants(ARRAY[v_id]);
    END CASE;
    RETURN true;
END
$$;
