-- What bring_forward does about a mismatch, so that nothing of it is fulfilled by another way: an order that was made for
-- it goes, one that goes by the payment's id is held for a person, and a payment that is new is known by its order.
CREATE OR REPLACE FUNCTION keep_apart(
    p_row transactions, p_made boolean, p_known transactions, p_pay order_payments, p_provider text, p_payment text
) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF p_made THEN
        DELETE FROM transactions t WHERE t.id = p_row.id;
    END IF;
    IF p_known.id <> p_row.id AND p_known.order_id = p_payment THEN
        UPDATE transactions t SET held_at = clock_timestamp(), updated_at = clock_timestamp()
         WHERE t.id = p_known.id AND t.held_at IS NULL AND t.fulfilled_at IS NULL AND t.status IN ('paid', 'partially_refunded');
    ELSIF p_pay.payment_id IS NULL THEN
        INSERT INTO order_payments (provider, payment_id, transaction_id, status)
        VALUES (p_provider, p_payment, p_row.id, 'created');
    END IF;
END
$$;
