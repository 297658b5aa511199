-- complete_tasks for one task: recorded, already or stale.
CREATE OR REPLACE FUNCTION complete_task(
    p_id uuid, p_lease bigint, p_result jsonb DEFAULT NULL, p_output_location text DEFAULT NULL
) RETURNS text
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
SELECT c.outcome FROM complete_tasks(ARRAY[p_id], ARRAY[p_lease], ARRAY[p_result], ARRAY[p_output_location]) c
$$;
