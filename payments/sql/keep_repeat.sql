-- Keeps a delivery that changes nothing and gives its id; null when its transaction (or, without one, its order or
-- its body) has p_most of that verdict already. One that contradicts its event is kept without the event's id.
CREATE OR REPLACE FUNCTION keep_repeat(
    p_provider text, p_source text, p_event_id text, p_event_type text, p_claim jsonb, p_body bytea, p_headers jsonb,
    p_verdict text, p_reason text, p_transaction_id uuid, p_took double precision, p_most integer
) RETURNS uuid
LANGUAGE plpgsql AS $$
DECLARE
    v_order constant text := p_claim ->> 'order_id';
    v_event constant text := CASE p_verdict WHEN 'duplicate' THEN p_event_id END;
    v_alike bigint;
    v_id uuid;
BEGIN
    IF p_transaction_id IS NOT NULL THEN
        SELECT count(*) INTO v_alike FROM (
            SELECT FROM webhook_deliveries d
             WHERE d.transaction_id = p_transaction_id AND d.verdict = p_verdict LIMIT p_most) n;
    ELSIF v_order IS NOT NULL THEN
        SELECT count(*) INTO v_alike FROM (
            SELECT FROM webhook_deliveries d WHERE d.order_id = v_order AND d.verdict = p_verdict LIMIT p_most) n;
    ELSE
        SELECT count(*) INTO v_alike FROM (
            SELECT FROM webhook_deliveries d
             WHERE d.provider = p_provider AND md5(d.body) = md5(p_body) AND d.signed AND d.order_id IS NULL
               AND d.transaction_id IS NULL AND d.verdict = p_verdict LIMIT p_most) n;
    END IF;
    IF v_alike < p_most THEN
        INSERT INTO webhook_deliveries
               (provider, source, event_id, event_type, order_id, payment_id, claim, verdict, reason, body, headers,
                transaction_id, took)
        VALUES (p_provider, p_source, v_event, p_event_type, v_order, p_claim ->> 'payment_id', p_claim, p_verdict, p_reason,
                p_body, p_headers, p_transaction_id, p_took + extract(epoch FROM clock_timestamp() - statement_timestamp()))
        RETURNING id INTO v_id;
    END IF;
    RETURN v_id;
END
$$;
