-- What apply_event does about a refund that did not go through: always a mismatch for a person, since the money may be
-- owed, and the news of the refund itself may come before or after. p_accept takes its amount off what is recorded as
-- given back. Whatever is told of more refunds of this payment from then on is a person's, too (see payment_fault).
CREATE OR REPLACE FUNCTION undo_refund(p_provider text, p_claim jsonb, p_accept boolean)
RETURNS TABLE (verdict text, reason text, changed boolean, transaction_id uuid, task_id uuid)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    v_pay order_payments;
    v_row transactions;
    v_left bigint;
BEGIN
    SELECT * INTO v_pay FROM order_payments p WHERE p.provider = p_provider AND p.payment_id = p_claim ->> 'payment_id';
    SELECT * INTO v_row FROM transactions t WHERE t.id = v_pay.transaction_id FOR NO KEY UPDATE;
    transaction_id := coalesce(v_row.id, (SELECT t.id FROM transactions t WHERE t.order_id = p_claim ->> 'order_id'));
    v_left := greatest(0, v_pay.refunded - (p_claim ->> 'amount')::bigint);
    reason := format('A refund of %s failed: ', p_claim ->> 'amount') || CASE
        WHEN v_pay.payment_id IS NULL THEN 'nothing is recorded of its payment'
        WHEN v_pay.refunded = 0 THEN 'no refund is recorded'
        ELSE format('recorded as refunded %s, left by that %s', v_pay.refunded, v_left) END;
    verdict := 'mismatch';
    changed := false;
    UPDATE order_payments p SET refund_failed = true
     WHERE p.provider = p_provider AND p.payment_id = v_pay.payment_id AND NOT p.refund_failed;
    IF p_accept AND v_pay.refunded > 0 AND v_row.payment_id <> v_pay.payment_id THEN
        reason := reason || ', and another payment pays the order: refund it again at the provider, then set this aside';
    ELSIF p_accept THEN
        verdict := 'accepted';
        changed := v_pay.refunded > v_left;
        UPDATE order_payments p
           SET refunded = v_left, status = CASE v_left WHEN 0 THEN 'paid' ELSE 'partially_refunded' END, updated_at = clock_timestamp()
         WHERE changed AND p.provider = p_provider AND p.payment_id = v_pay.payment_id;
        UPDATE transactions t
           SET refunded = v_left, status = CASE v_left WHEN 0 THEN 'paid' ELSE 'partially_refunded' END, updated_at = clock_timestamp()
         WHERE changed AND t.id = v_row.id;
    END IF;
    RETURN NEXT;
END
$$;
