-- Why a person must look at an event about the order p_row: what it says otherwise than the ledger (unless p_accept),
-- that another payment than the recorded one paid or refunded it, that its payment p_pay is known as one of another
-- order, p_known, or that more went back by a payment of which a refund failed. Null: nothing.
CREATE OR REPLACE FUNCTION payment_fault(
    p_row transactions, p_known transactions, p_pay order_payments, p_provider text, p_claim jsonb, p_accept boolean
) RETURNS text
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_new constant text := p_claim ->> 'status';
    v_payment constant text := p_claim ->> 'payment_id';
    v_order constant text := p_claim ->> 'order_id';
    v_brought constant boolean := coalesce(money_has_come(p_pay.status), false);
    v_beside constant boolean := coalesce(money_has_come(p_row.status) AND p_row.payment_id <> v_payment, false);
BEGIN
    -- One that goes by the payment's own name is no other order; and a person may say whose an attempt was.
    IF p_known.order_id <> v_order AND (p_known.order_id <> v_payment OR p_known.expected_at IS NOT NULL)
       AND NOT (p_accept AND NOT v_brought) THEN
        RETURN format('payment %s: recorded for order %s, delivered for order %s', v_payment, p_known.order_id, v_order);
    END IF;
    IF p_pay.refund_failed AND NOT p_accept AND (p_claim ->> 'refunded')::bigint > p_pay.refunded THEN
        RETURN format('A refund of this payment failed: recorded as refunded %s, delivered %s', p_pay.refunded, p_claim ->> 'refunded');
    END IF;
    IF NOT v_beside THEN
        -- What failed or was reserved need not be what was announced or came.
        RETURN CASE WHEN NOT p_accept AND v_new <> 'failed' AND (money_has_come(v_new) OR NOT money_has_come(p_row.status))
                    THEN ledger_differences(p_row, p_provider, p_claim) END;
    END IF;
    -- A payment beside the one that counts may be tried, fail and be refunded in full, and its old news may come late; it
    -- may not bring money, save that a person may say that it pays an order whose money went back.
    IF NOT money_has_come(v_new) AND NOT v_brought THEN
        RETURN NULL;
    END IF;
    IF (p_known.id IS NULL OR p_known.id = p_row.id)
       AND (v_new = 'refunded'
            OR p_accept AND p_row.status = 'refunded' AND p_pay.status IS DISTINCT FROM 'refunded'
            OR NOT p_accept AND payment_rank(v_new) < payment_rank(p_pay.status)) THEN
        RETURN NULL;
    END IF;
    RETURN format('payment: recorded %s, delivered %s%s', p_row.payment_id, v_payment,
                  CASE WHEN v_new = 'paid' THEN ', so the order was paid twice' ELSE '' END);
END
$$;
