-- Brings an order up to what an event says of one of its payments (p_claim, see receive_delivery), and starts its
-- fulfilment when it becomes paid. Events of one payment take turns, and so do those of one order until the caller's
-- transaction ends. Each payment, and with it the order, only moves forward, in whatever order the news come:
--   created -> authorized -> paid -> partially_refunded -> refunded; failed from created and authorized.
-- An order is what the payment that brought its money is; until then it is authorized while any payment is, and
-- failed when all have failed. A refund proves that the money had come. fulfilled_at stands beside these states.
-- An event that names no order means the order of its payment, else the payment stands for the order until an
-- event names it.
-- p_accept: a person has looked at the difference; the event's amount, currency and address replace the recorded ones.
CREATE OR REPLACE FUNCTION apply_event(
    p_provider text, p_claim jsonb, p_delivery uuid, p_hold boolean DEFAULT false, p_accept boolean DEFAULT false
) RETURNS TABLE (verdict text, reason text, changed boolean, transaction_id uuid, task_id uuid)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    v_new constant text := p_claim ->> 'status';
    v_payment constant text := p_claim ->> 'payment_id';
    v_pay order_payments;
    v_known transactions;
    v_row transactions;
    v_name text;
    v_made boolean;
    v record;
BEGIN
    PERFORM lock_payment(p_provider, v_payment);
    IF v_new = 'refund_failed' THEN
        RETURN QUERY SELECT * FROM undo_refund(p_provider, p_claim, p_accept);
        RETURN;
    END IF;
    SELECT * INTO v_pay FROM order_payments p WHERE p.provider = p_provider AND p.payment_id = v_payment;
    IF FOUND THEN
        SELECT * INTO v_known FROM transactions t WHERE t.id = v_pay.transaction_id;
    END IF;
    v_name := coalesce(p_claim ->> 'order_id', v_known.order_id, v_payment);
    LOOP
        INSERT INTO transactions AS t (provider, order_id, payment_id, email, amount, currency, refunded, status, paid_at)
        VALUES (p_provider, v_name, v_payment, p_claim ->> 'email', (p_claim ->> 'amount')::bigint, p_claim ->> 'currency',
                coalesce((p_claim ->> 'refunded')::bigint, 0), v_new, CASE WHEN money_has_come(v_new) THEN clock_timestamp() END)
        ON CONFLICT DO NOTHING RETURNING t.* INTO v_row;
        v_made := v_row.id IS NOT NULL;
        EXIT WHEN v_made;
        SELECT * INTO v_row FROM transactions t WHERE t.order_id = v_name FOR NO KEY UPDATE;
        -- Else it was folded into another row while we waited for it.
        EXIT WHEN FOUND;
    END LOOP;
    IF v_pay.payment_id IS NOT NULL THEN
        -- So may have been the row that the payment was known by.
        SELECT * INTO v_pay FROM order_payments p WHERE p.provider = p_provider AND p.payment_id = v_payment;
        SELECT * INTO v_known FROM transactions t WHERE t.id = v_pay.transaction_id;
    END IF;
    IF v_made AND v_known.id IS NULL THEN
        PERFORM record_payment(v_row.id, v_pay, p_provider, p_claim);
        changed := true;
        verdict := 'accepted';
        reason := CASE WHEN money_has_come(v_new) THEN 'Nobody announced this order: recorded as unexpected.' ELSE '' END;
    ELSE
        SELECT * INTO v FROM bring_forward(v_row, v_made, v_known, v_pay, p_provider, p_claim, p_hold, p_accept);
        verdict := v.verdict;
        reason := v.reason;
        changed := v.changed;
        v_row := v.ledger_row;
    END IF;
    transaction_id := v_row.id;
    IF changed AND v_row.status IN ('paid', 'partially_refunded') AND v_row.task_id IS NULL AND v_row.fulfilled_at IS NULL
       AND v_row.held_at IS NULL THEN
        IF v_row.expected_at IS NULL AND (p_hold OR v_new = 'partially_refunded' AND v_row.payment_id = v_payment) THEN
            -- A refund alone may be of an order that was fulfilled long before this ledger knew of it.
            UPDATE transactions t SET held_at = clock_timestamp() WHERE t.id = v_row.id;
            reason := 'Nobody announced this order: held until a person releases it'
                      || CASE WHEN p_hold THEN '.' ELSE ', or the news comes that it was paid.' END;
        ELSE
            -- What is known by its payment alone may be named within moments.
            task_id := start_fulfilment(v_row.id, p_delivery, CASE
                WHEN p_claim -> 'order_follows' = 'true' AND v_row.order_id = v_payment THEN interval '2 minutes' END);
        END IF;
    END IF;
    RETURN NEXT;
END
$$;
