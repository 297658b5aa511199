-- Keeps a delivery that was refused, and gives its id; null when p_most of its kind were kept within the last hour:
-- signed ones that we cannot read, which may be money, or unsigned ones, which anybody can send. The same signed body
-- is kept once.
CREATE OR REPLACE FUNCTION reject_delivery(
    p_provider text, p_source text, p_body bytea, p_headers jsonb, p_reason text, p_signed boolean, p_most integer,
    p_took double precision DEFAULT 0
) RETURNS uuid
LANGUAGE plpgsql SET lock_timeout = '4s' AS $$
DECLARE
    v_id uuid;
    v_full boolean := false;
BEGIN
    -- Counted before the lock, so that a flood beyond the bound never waits; and again under it, else a burst would
    -- count together and then be stored together.
    FOR v_try IN 1..2 LOOP
        IF p_signed THEN
            SELECT d.id INTO v_id FROM webhook_deliveries d
             WHERE d.provider = p_provider AND md5(d.body) = md5(p_body) AND d.signed AND d.order_id IS NULL
               AND d.transaction_id IS NULL AND d.verdict = 'rejected' AND d.body = p_body LIMIT 1;
        END IF;
        v_full := (SELECT count(*) FROM (
            SELECT FROM webhook_deliveries d
             WHERE d.verdict = 'rejected' AND d.signed = p_signed AND d.received_at > statement_timestamp() - interval '1 hour'
             LIMIT p_most) recent) >= p_most;
        IF v_full OR v_id IS NOT NULL THEN
            RETURN v_id;
        END IF;
        PERFORM pg_advisory_xact_lock(hashtext(format('payments.rejected %s', p_signed)));
    END LOOP;
    INSERT INTO webhook_deliveries (provider, source, verdict, signed, reason, body, headers, took)
    VALUES (p_provider, p_source, 'rejected', p_signed, p_reason, p_body, p_headers,
            p_took + extract(epoch FROM clock_timestamp() - statement_timestamp()))
    RETURNING id INTO v_id;
    RETURN v_id;
END
$$;
