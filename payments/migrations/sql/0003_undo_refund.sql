-- What apply_event does about a refund that did not go through: a mismatch for a person, if any refund of the payment is
-- recorded, since it may be another one; p_accept takes its amount off what was given back. The order's row is locked.
CREATE OR REPLACE FUNCTION undo_refund(p_provider text, p_claim jsonb, p_accept boolean)
RETURNS TABLE (verdict text, reason text, changed boolean, transaction_id uuid, task_id uuid)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    v_pay order_payments;
    v_left bigint;
BEGIN
    changed := false;
    verdict := 'accepted';
    SELECT * INTO v_pay FROM order_payments p WHERE p.provider = p_provider AND p.payment_id = p_claim ->> 'payment_id';
    transaction_id := coalesce(v_pay.transaction_id, (SELECT t.id FROM transactions t WHERE t.order_id = p_claim ->> 'order_id'));
    IF coalesce(v_pay.refunded, 0) = 0 THEN
        reason := 'A refund failed, and none is recorded: nothing to do.';
        RETURN NEXT;
        RETURN;
    END IF;
    PERFORM FROM transactions t WHERE t.id = v_pay.transaction_id FOR NO KEY UPDATE;
    v_left := greatest(0, v_pay.refunded - (p_claim ->> 'amount')::bigint);
    reason := format('A refund of %s failed: recorded as refunded %s, left by that %s', p_claim ->> 'amount', v_pay.refunded, v_left);
    IF p_accept THEN
        changed := true;
        UPDATE order_payments p
           SET refunded = v_left, status = CASE v_left WHEN 0 THEN 'paid' ELSE 'partially_refunded' END, updated_at = clock_timestamp()
         WHERE p.provider = p_provider AND p.payment_id = v_pay.payment_id;
        UPDATE transactions t
           SET refunded = v_left, status = CASE v_left WHEN 0 THEN 'paid' ELSE 'partially_refunded' END, updated_at = clock_timestamp()
         WHERE t.id = v_pay.transaction_id AND t.provider = p_provider AND t.payment_id = v_pay.payment_id;
    ELSE
        verdict := 'mismatch';
    END IF;
    RETURN NEXT;
END
$$;
