-- The error history with one entry more; the first and the newest are kept when it grows past 25.
CREATE OR REPLACE FUNCTION add_error(p_errors jsonb, p_record jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE AS $$
SELECT CASE WHEN jsonb_array_length(p_errors) >= 25 THEN p_errors - 1 ELSE p_errors END || p_record
$$;
