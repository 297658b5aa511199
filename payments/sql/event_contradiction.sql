-- What a delivery says otherwise than the first one of its event id; null where it says the same.
CREATE OR REPLACE FUNCTION event_contradiction(p_first webhook_deliveries, p_provider text, p_event_type text, p_claim jsonb)
RETURNS text
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_order constant text := p_claim ->> 'order_id';
    v_row transactions;
BEGIN
    IF (p_first.event_type, p_first.order_id) IS DISTINCT FROM (p_event_type, v_order) THEN
        RETURN format('The event id %s was used before: recorded %s of order %s, delivered %s of order %s.', p_first.event_id,
                      p_first.event_type, coalesce(p_first.order_id, 'none'), p_event_type, coalesce(v_order, 'none'));
    END IF;
    SELECT * INTO v_row FROM transactions t WHERE t.id = p_first.transaction_id;
    IF v_row.id IS NULL OR p_claim ->> 'amount' IS NULL THEN
        RETURN NULL;
    END IF;
    RETURN ledger_differences(v_row, p_provider, p_claim);
END
$$;
