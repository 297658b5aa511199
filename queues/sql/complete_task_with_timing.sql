-- Completes a task by its bare id, for callers without a lease: see settle_without_lease. True if done.
CREATE OR REPLACE FUNCTION complete_task_with_timing(p_task_id text, p_output_location text) RETURNS boolean
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
SELECT settle_without_lease(p_task_id, 'completed', p_output_location)
$$;
