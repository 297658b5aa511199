-- Asks the endpoint `bubble_sync` to try failed items of queue `sync` again, in the caller's transaction:
-- see request_sync. A NOTICE and nothing else when no item that was tried before is due.
CREATE OR REPLACE FUNCTION invoke_bubble_sync_retry() RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
SELECT request_sync('bubble_sync_retry', true, '{"action": "retry_failed", "payload": {}}')
$$;
