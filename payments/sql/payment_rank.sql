-- How far news of a payment goes: the higher one stays, in whatever order they come. A failure ends an
-- authorization, and a payment that failed may still succeed.
CREATE OR REPLACE FUNCTION payment_rank(p_status text) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
SELECT array_position(ARRAY['created', 'authorized', 'failed', 'paid', 'partially_refunded', 'refunded'], p_status)
$$;
