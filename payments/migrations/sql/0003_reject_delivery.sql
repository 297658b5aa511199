-- Keeps a delivery that was refused, and gives its id; null when p_most of that kind were kept within the last hour.
-- p_room is for unsigned ones, which anybody can send; the rest is for signed ones that we cannot read, which may
-- be money. One at a time: else a burst would count together and then be stored together.
CREATE OR REPLACE FUNCTION reject_delivery(
    p_provider text, p_source text, p_body bytea, p_headers jsonb, p_reason text, p_most integer, p_took double precision DEFAULT 0
) RETURNS uuid
LANGUAGE plpgsql SET lock_timeout = '4s' AS $$
DECLARE
    v_id uuid;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('payments.rejected'));
    IF (SELECT count(*) FROM (SELECT FROM webhook_deliveries d
                               WHERE d.verdict = 'rejected' AND d.received_at > clock_timestamp() - interval '1 hour'
                               LIMIT p_most) recent) < p_most THEN
        INSERT INTO webhook_deliveries (provider, source, verdict, reason, body, headers, took)
        VALUES (p_provider, p_source, 'rejected', p_reason, p_body, p_headers,
                p_took + extract(epoch FROM clock_timestamp() - statement_timestamp()))
        RETURNING id INTO v_id;
    END IF;
    RETURN v_id;
END
$$;
