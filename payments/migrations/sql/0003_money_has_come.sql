-- Whether a status says that the money has come, be it that it went back since.
CREATE OR REPLACE FUNCTION money_has_come(p_status text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
SELECT p_status IN ('paid', 'partially_refunded', 'refunded')
$$;
