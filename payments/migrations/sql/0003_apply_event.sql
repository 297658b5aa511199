-- Brings an order's row up to what an event says of its money (p_claim, see receive_delivery), and starts its
-- fulfilment when it becomes paid. The row stays locked until the caller's transaction ends, so that deliveries
-- about one order take turns. The state only moves forward, in whatever order the news come:
--   created -> authorized -> paid -> partially_refunded -> refunded; failed from created and authorized, and from
--   there on to paid, since another payment of the order may succeed.
-- A refund proves that the money had come. fulfilled_at stands beside these states.
-- p_accept: a person has looked at the difference; the event's amount, currency and address replace the recorded ones.
CREATE OR REPLACE FUNCTION apply_event(
    p_provider text, p_claim jsonb, p_delivery uuid, p_hold boolean DEFAULT false, p_accept boolean DEFAULT false
) RETURNS TABLE (verdict text, reason text, changed boolean, transaction_id uuid, task_id uuid)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    v_new constant text := p_claim ->> 'status';
    v_payment constant text := p_claim ->> 'payment_id';
    v_refunded constant bigint := coalesce((p_claim ->> 'refunded')::bigint, 0);
    v_order text := order_of_payment(p_provider, p_claim ->> 'order_id', v_payment);
    v_row transactions;
    v_fault text;
    v_told boolean := false;
BEGIN
    INSERT INTO transactions AS t (provider, order_id, payment_id, email, amount, currency, refunded, status, paid_at)
    VALUES (p_provider, v_order, v_payment, p_claim ->> 'email', (p_claim ->> 'amount')::bigint, p_claim ->> 'currency',
            v_refunded, v_new, CASE WHEN money_has_come(v_new) THEN clock_timestamp() END)
    ON CONFLICT DO NOTHING RETURNING t.* INTO v_row;
    changed := v_row.id IS NOT NULL;
    IF changed THEN
        verdict := 'accepted';
        reason := CASE WHEN money_has_come(v_new) THEN 'Nobody announced this order: recorded as unexpected.' ELSE '' END;
    ELSE
        SELECT * INTO v_row FROM transactions t WHERE t.order_id = v_order FOR NO KEY UPDATE;
        IF v_row.id IS NULL THEN
            -- The payment stood in the way: of another order, or of this one, whose name a delivery that has
            -- committed meanwhile knew, or did not know.
            v_order := order_of_payment(p_provider, p_claim ->> 'order_id', v_payment);
            SELECT * INTO v_row FROM transactions t WHERE t.order_id = v_order FOR NO KEY UPDATE;
        END IF;
        IF v_row.id IS NULL THEN
            -- It is the money of one order only.
            SELECT * INTO STRICT v_row FROM transactions t WHERE t.provider = p_provider AND t.payment_id = v_payment;
            v_fault := format('payment %s: recorded for order %s, delivered for order %s', v_payment, v_row.order_id, v_order);
        ELSE
            v_fault := payment_fault(v_row, p_provider, p_claim, p_accept);
        END IF;
        transaction_id := v_row.id;
        IF v_fault IS NOT NULL THEN
            verdict := 'mismatch';
            reason := v_fault;
            RETURN NEXT;
            RETURN;
        END IF;
        changed := moves_forward(v_row, v_new, v_payment, v_refunded);
        verdict := CASE WHEN changed OR v_new = v_row.status OR (v_new = 'paid' AND v_row.status = 'partially_refunded')
                        THEN 'accepted' ELSE 'stale' END;
        reason := CASE WHEN changed THEN ''
                       WHEN verdict = 'accepted' THEN format('The order is %s already: nothing to do.', replace(v_row.status, '_', ' '))
                       ELSE format('The order is %s; %s came too late.', replace(v_row.status, '_', ' '), replace(v_new, '_', ' ')) END;
        -- Held only because nobody had told that it was paid in full.
        v_told := v_new = 'paid' AND v_row.status = 'partially_refunded' AND v_row.held_at IS NOT NULL AND NOT p_hold;
        IF NOT changed AND NOT v_told AND NOT (
            p_accept AND money_has_come(v_new) AND v_payment IS NOT DISTINCT FROM coalesce(v_row.payment_id, v_payment)) THEN
            RETURN NEXT;
            RETURN;
        END IF;
        UPDATE transactions t
           SET provider = CASE WHEN p_accept THEN p_provider ELSE t.provider END,
               held_at = CASE WHEN NOT v_told THEN t.held_at END,
               status = CASE WHEN changed THEN v_new ELSE t.status END,
               refunded = greatest(t.refunded, v_refunded),
               payment_id = CASE WHEN changed THEN coalesce(v_payment, t.payment_id) ELSE coalesce(t.payment_id, v_payment) END,
               email = CASE WHEN p_accept THEN coalesce(p_claim ->> 'email', t.email) ELSE coalesce(t.email, p_claim ->> 'email') END,
               amount = CASE WHEN p_accept THEN (p_claim ->> 'amount')::bigint ELSE t.amount END,
               currency = CASE WHEN p_accept THEN p_claim ->> 'currency' ELSE t.currency END,
               paid_at = CASE WHEN money_has_come(v_new) THEN coalesce(t.paid_at, clock_timestamp()) ELSE t.paid_at END,
               updated_at = clock_timestamp()
         WHERE t.id = v_row.id RETURNING t.* INTO v_row;
    END IF;
    transaction_id := v_row.id;
    IF v_row.status IN ('paid', 'partially_refunded') AND v_row.task_id IS NULL AND v_row.fulfilled_at IS NULL
       AND v_row.held_at IS NULL THEN
        IF v_row.expected_at IS NULL AND (p_hold OR v_new = 'partially_refunded') AND NOT v_told THEN
            -- A refund alone may be of an order that was fulfilled long before this ledger knew of it.
            UPDATE transactions t SET held_at = clock_timestamp() WHERE t.id = v_row.id;
            reason := 'Nobody announced this order: held until a person releases it'
                      || CASE WHEN p_hold THEN '.' ELSE ', or the news comes that it was paid.' END;
        ELSE
            task_id := start_fulfilment(v_row.id, p_delivery);
        END IF;
    END IF;
    RETURN NEXT;
END
$$;
