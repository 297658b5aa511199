-- Notes how far a task has come (percent 0 to 100 and a sentence): recorded, or stale when the caller
-- no longer holds it and should stop.
CREATE OR REPLACE FUNCTION report_progress(p_id uuid, p_lease bigint, p_percent integer, p_note text DEFAULT NULL)
RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    UPDATE tasks t
       SET progress = p_percent, progress_note = left(p_note, 500), updated_at = clock_timestamp()
     WHERE t.id = p_id AND t.lease = p_lease AND (t.status || '') = 'processing';
    RETURN CASE WHEN FOUND THEN 'recorded' ELSE 'stale' END;
END
$$;
