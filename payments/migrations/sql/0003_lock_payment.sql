-- Lets whatever is done about one payment of a provider take turns until the caller's transaction ends. Taken before
-- any row is locked.
CREATE OR REPLACE FUNCTION lock_payment(p_provider text, p_payment_id text) RETURNS void
LANGUAGE sql AS $$
SELECT pg_advisory_xact_lock(hashtextextended(format('payment %s %s', p_provider, p_payment_id), 0))
$$;
