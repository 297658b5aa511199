-- Gives a task a status by its bare id, for callers without a lease: see settle_without_lease. With
-- Failed, p_output_location is also taken for the reason. True if it was done.
CREATE OR REPLACE FUNCTION func_update_task_status(
    p_task_id text, p_status text, p_table_name text DEFAULT 'tasks', p_output_location text DEFAULT NULL
) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    v_status text := word_to_status(p_status);
BEGIN
    PERFORM require_tasks_table(p_table_name);
    RETURN settle_without_lease(p_task_id, v_status, p_output_location,
        CASE WHEN v_status = 'failed' THEN coalesce(nullif(p_output_location, ''), 'Failed; no reason was given.') END);
END
$$;
