-- A status in the words of the GPU workers; blocked and scheduled read as Queued.
CREATE OR REPLACE FUNCTION status_to_word(p_status text) RETURNS text
LANGUAGE sql IMMUTABLE AS $$
SELECT CASE p_status WHEN 'processing' THEN 'In Progress' WHEN 'completed' THEN 'Complete' WHEN 'failed' THEN 'Failed'
                     WHEN 'cancelled' THEN 'Cancelled' ELSE 'Queued' END
$$;
