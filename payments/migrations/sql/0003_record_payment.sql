-- Writes down what an event says of its payment, p_pay as it was known, and that it is one of the order p_transaction;
-- gives whether that moved it on.
CREATE OR REPLACE FUNCTION record_payment(p_transaction uuid, p_pay order_payments, p_provider text, p_claim jsonb) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    v_new constant text := p_claim ->> 'status';
    v_refunded constant bigint := coalesce((p_claim ->> 'refunded')::bigint, 0);
BEGIN
    IF p_pay.payment_id IS NULL THEN
        INSERT INTO order_payments (provider, payment_id, transaction_id, status, refunded)
        VALUES (p_provider, p_claim ->> 'payment_id', p_transaction, v_new, v_refunded);
        RETURN true;
    END IF;
    UPDATE order_payments p SET transaction_id = p_transaction
     WHERE p.provider = p_pay.provider AND p.payment_id = p_pay.payment_id AND p.transaction_id <> p_transaction;
    IF payment_rank(v_new) < payment_rank(p_pay.status) OR v_new = p_pay.status AND v_refunded <= p_pay.refunded THEN
        RETURN false;
    END IF;
    UPDATE order_payments p
       SET status = v_new, refunded = greatest(p.refunded, v_refunded), updated_at = clock_timestamp()
     WHERE p.provider = p_pay.provider AND p.payment_id = p_pay.payment_id;
    RETURN true;
END
$$;
