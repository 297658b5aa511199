-- The pause before attempt p_attempts + 1: exponential with full jitter, so that tasks that failed
-- together do not return together. At most p_cap.
CREATE OR REPLACE FUNCTION retry_delay(
    p_attempts integer, p_base interval DEFAULT '5 seconds', p_cap interval DEFAULT '1 hour'
) RETURNS interval
LANGUAGE sql VOLATILE AS $$
SELECT random() * least(p_cap, least(p_base, p_cap) * power(2, least(greatest(p_attempts, 0), 30)))
$$;
