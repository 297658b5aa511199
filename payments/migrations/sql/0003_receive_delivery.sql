-- Records one genuine delivery with all its effects, as one: its row, the order's row and, when the order
-- becomes paid, its fulfilment task. p_claim is what the event says, in our words: status (null: it changes no
-- money; else payment_id is given), order_id, payment_id, amount and refunded (minor units), currency, email, note,
-- order_follows (another event may yet name the order). p_source: webhook,
-- callback or reconciliation. p_hold: an order that nobody announced is held for a person, not fulfilled.
-- p_took: seconds that the caller has spent on it so far.
-- An event that came before changes nothing and is kept as a duplicate, or as a mismatch where it says otherwise
-- now; a transaction keeps p_repeats of each. delivery_id is null where its row was one too many.
-- Raises 55P03 when another delivery of the order or event is not done after 4 s.
CREATE OR REPLACE FUNCTION receive_delivery(
    p_provider text, p_source text, p_event_id text, p_event_type text, p_claim jsonb, p_body bytea,
    p_headers jsonb DEFAULT '{}', p_hold boolean DEFAULT false, p_took double precision DEFAULT 0,
    p_repeats integer DEFAULT 100
) RETURNS TABLE (verdict text, reason text, delivery_id uuid, transaction_id uuid, task_id uuid)
LANGUAGE plpgsql SET lock_timeout = '4s' SET jit = off AS $$
#variable_conflict use_column
DECLARE
    v_begun constant timestamptz := clock_timestamp();
    v_order constant text := p_claim ->> 'order_id';
    v_first webhook_deliveries;
    v record;
BEGIN
    INSERT INTO webhook_deliveries AS d (provider, source, event_id, event_type, order_id, payment_id, claim, verdict, body, headers)
    VALUES (p_provider, p_source, p_event_id, p_event_type, v_order, p_claim ->> 'payment_id', p_claim, 'accepted', p_body, p_headers)
    ON CONFLICT DO NOTHING RETURNING d.id INTO delivery_id;
    IF delivery_id IS NULL THEN
        -- Locked, so that its repeats are counted one after the other.
        SELECT * INTO STRICT v_first FROM webhook_deliveries d
         WHERE d.provider = p_provider AND d.event_id = p_event_id AND d.verdict NOT IN ('duplicate', 'rejected')
           FOR NO KEY UPDATE;
        transaction_id := v_first.transaction_id;
        reason := CASE WHEN v_first.body <> p_body THEN event_contradiction(v_first, p_event_type, p_claim) END;
        verdict := CASE WHEN reason IS NULL THEN 'duplicate' ELSE 'mismatch' END;
        reason := coalesce(reason, 'This event came before.');
        delivery_id := keep_repeat(
            p_provider, p_source, p_event_id, p_event_type, p_claim, p_body, p_headers, verdict, reason, transaction_id,
            p_took, p_repeats);
        RETURN NEXT;
        RETURN;
    END IF;
    IF p_claim ->> 'status' IS NULL THEN
        -- Locked: it could be folded into another row.
        SELECT t.id INTO transaction_id FROM transactions t WHERE t.order_id = v_order FOR KEY SHARE;
        SELECT 'accepted' AS verdict, coalesce(p_claim ->> 'note', '') AS reason, false AS changed,
               transaction_id AS transaction_id, NULL::uuid AS task_id
          INTO v;
    ELSE
        SELECT * INTO v FROM apply_event(p_provider, p_claim, delivery_id, p_hold);
    END IF;
    verdict := v.verdict;
    reason := v.reason;
    transaction_id := v.transaction_id;
    task_id := v.task_id;
    IF NOT v.changed AND EXISTS (
        SELECT FROM webhook_deliveries d
         WHERE d.transaction_id = v.transaction_id AND d.provider = p_provider AND d.body = p_body AND d.id <> delivery_id
        UNION ALL
        SELECT FROM webhook_deliveries d
         WHERE v.transaction_id IS NULL AND d.order_id = v_order AND d.provider = p_provider AND d.body = p_body
           AND d.verdict <> 'rejected' AND d.id <> delivery_id
        UNION ALL
        SELECT FROM webhook_deliveries d
         WHERE v.transaction_id IS NULL AND v_order IS NULL AND d.provider = p_provider AND md5(d.body) = md5(p_body)
           AND d.signed AND d.order_id IS NULL AND d.transaction_id IS NULL
           AND d.body = p_body AND d.verdict <> 'rejected' AND d.id <> delivery_id) THEN
        -- The event's id is not always signed: under a new one this is still the delivery that we have.
        DELETE FROM webhook_deliveries d WHERE d.id = delivery_id;
        verdict := 'duplicate';
        reason := 'The same body came before under another event id.';
        delivery_id := keep_repeat(
            p_provider, p_source, p_event_id, p_event_type, p_claim, p_body, p_headers, verdict, reason, transaction_id,
            p_took, p_repeats);
        RETURN NEXT;
        RETURN;
    END IF;
    UPDATE webhook_deliveries d
       SET verdict = v.verdict, reason = v.reason, transaction_id = v.transaction_id, task_id = v.task_id,
           took = p_took + extract(epoch FROM clock_timestamp() - v_begun)
     WHERE d.id = delivery_id;
    RETURN NEXT;
END
$$;
