-- fail_tasks for one task, with its error as plain text; p_retry false fails it for good.
CREATE OR REPLACE FUNCTION fail_task(p_id uuid, p_lease bigint, p_error text, p_retry boolean DEFAULT true)
RETURNS text
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
SELECT f.outcome FROM fail_tasks(ARRAY[p_id], ARRAY[p_lease], ARRAY[jsonb_build_object('message', p_error)],
                                 NULL, ARRAY[NOT p_retry]) f
$$;
