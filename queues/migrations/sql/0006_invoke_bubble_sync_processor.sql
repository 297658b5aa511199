-- Asks the endpoint `bubble_sync` to process new items of queue `sync`, in the caller's transaction: see
-- request_sync. A NOTICE and nothing else when no item that was never tried is due.
CREATE OR REPLACE FUNCTION invoke_bubble_sync_processor() RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
SELECT request_sync('bubble_sync_processor', false,
    '{"action": "process_queue_data_api", "payload": {"limit": 10, "batch_size": 5}}')
$$;
