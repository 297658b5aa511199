-- Whether a payload or result takes more than 1 MiB before it is compressed for storage.
CREATE OR REPLACE FUNCTION jsonb_too_large(p_value jsonb) RETURNS boolean
LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    -- One taken out of a fresh array is neither compressed nor stored elsewhere; a small one cannot be.
    RETURN pg_column_size(p_value) > 10000 AND pg_column_size(jsonb_build_array(p_value) -> 0) > 1048576;
END
$$;
