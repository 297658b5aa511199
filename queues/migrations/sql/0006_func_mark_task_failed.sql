-- Fails a task by its bare id, finally, for callers without a lease: see settle_without_lease. True if
-- done.
CREATE OR REPLACE FUNCTION func_mark_task_failed(p_task_id text, p_error_message text) RETURNS boolean
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
SELECT settle_without_lease(p_task_id, 'failed', NULL, coalesce(nullif(p_error_message, ''), 'Failed; no reason was given.'))
$$;
