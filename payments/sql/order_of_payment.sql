-- The order that an event speaks of. One that names only its payment means the order of that payment, or, where
-- that is unknown, the payment stands for the order itself; once an event names the order, the row gets its name.
CREATE OR REPLACE FUNCTION order_of_payment(p_provider text, p_order_id text, p_payment_id text) RETURNS text
LANGUAGE plpgsql AS $$
BEGIN
    IF p_order_id IS NULL THEN
        RETURN coalesce((SELECT t.order_id FROM transactions t WHERE t.provider = p_provider AND t.payment_id = p_payment_id),
                        p_payment_id);
    END IF;
    IF p_order_id <> p_payment_id THEN
        UPDATE transactions t SET order_id = p_order_id, updated_at = clock_timestamp()
         WHERE t.provider = p_provider AND t.order_id = p_payment_id AND t.payment_id = p_payment_id
           AND NOT EXISTS (SELECT FROM transactions o WHERE o.order_id = p_order_id);
    END IF;
    RETURN p_order_id;
END
$$;
