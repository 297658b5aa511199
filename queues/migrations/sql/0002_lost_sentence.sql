-- What a person reads on a task that lost its worker.
CREATE OR REPLACE FUNCTION lost_sentence(p_reason text, p_worker text, p_times integer) RETURNS text
LANGUAGE sql IMMUTABLE AS $$
SELECT format('Lost: %s (worker %s%s)', p_reason, p_worker, CASE WHEN p_times > 1 THEN ', ' || p_times || ' times now' ELSE '' END)
$$;
