-- The status that a caller means, given in our words or in those of the GPU workers, in either case.
-- Error 22023 for any other word.
CREATE OR REPLACE FUNCTION word_to_status(p_word text) RETURNS text
LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    v_status text := CASE lower(p_word)
        WHEN 'queued' THEN 'pending' WHEN 'pending' THEN 'pending'
        WHEN 'in progress' THEN 'processing' WHEN 'processing' THEN 'processing'
        WHEN 'complete' THEN 'completed' WHEN 'completed' THEN 'completed'
        WHEN 'failed' THEN 'failed' WHEN 'cancelled' THEN 'cancelled' END;
BEGIN
    IF v_status IS NULL THEN
        RAISE EXCEPTION 'unknown status "%"', coalesce(p_word, 'null')
            USING ERRCODE = 'invalid_parameter_value',
                  HINT = 'Give Queued, In Progress, Complete, Failed or Cancelled (or pending, processing, completed, failed, cancelled).';
    END IF;
    RETURN v_status;
END
$$;
