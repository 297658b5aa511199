-- Notes how far a task has come (percent 0 to 100 and a sentence): recorded, or stale when the caller
-- no longer holds it and should stop.
CREATE OR REPLACE FUNCTION report_progress(p_id uuid, p_lease bigint, p_percent integer, p_note text DEFAULT NULL)
RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    UPDATE tasks t
       SET progress = p_percent, progress_note = left(p_note, 500), updated_at = clock_timestamp()
     WHERE t.id = (SELECT s.id FROM tasks s WHERE s.id = p_id AND s.lease = p_lease AND (s.status || '') = 'processing'
                      FOR NO KEY UPDATE SKIP LOCKED);
    IF FOUND THEN
        RETURN 'recorded';
    END IF;
    -- A row that the handler's own transaction holds is passed over: the next report will show.
    RETURN CASE WHEN EXISTS (SELECT FROM tasks t WHERE t.id = p_id AND t.lease = p_lease AND (t.status || '') = 'processing')
                THEN 'recorded' ELSE 'stale' END;
END
$$;
