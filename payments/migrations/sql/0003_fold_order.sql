-- Makes one row of two for the same order: p_stand_in goes by its payment's id, p_named, which no money has reached,
-- has the order's name. The first keeps its task and its record of fulfilment and takes the name and, unless p_named
-- was made just now (p_made), the announcement; the second goes.
CREATE OR REPLACE FUNCTION fold_order(p_stand_in uuid, p_named transactions, p_made boolean) RETURNS transactions
LANGUAGE plpgsql AS $$
DECLARE
    v_row transactions;
BEGIN
    -- Waits for a fulfilment of it that is under way.
    PERFORM FROM transactions t WHERE t.id = p_stand_in FOR UPDATE;
    UPDATE order_payments p SET transaction_id = p_stand_in WHERE p.transaction_id = p_named.id;
    UPDATE webhook_deliveries d SET transaction_id = p_stand_in WHERE d.transaction_id = p_named.id;
    UPDATE reconciliation_rows r SET transaction_id = p_stand_in WHERE r.order_id = p_named.order_id AND r.transaction_id = p_named.id;
    DELETE FROM transactions t WHERE t.id = p_named.id;
    UPDATE fulfilments f SET order_id = p_named.order_id WHERE f.transaction_id = p_stand_in;
    UPDATE transactions t
       SET order_id = p_named.order_id,
           provider = CASE WHEN p_made THEN t.provider ELSE p_named.provider END,
           amount = CASE WHEN p_made THEN t.amount ELSE p_named.amount END,
           currency = CASE WHEN p_made THEN t.currency ELSE p_named.currency END,
           expected_at = p_named.expected_at,
           expected_email = p_named.expected_email,
           email = coalesce(p_named.expected_email, t.email),
           held_at = CASE WHEN p_named.expected_at IS NULL THEN t.held_at END,
           created_at = least(t.created_at, p_named.created_at),
           updated_at = clock_timestamp()
     WHERE t.id = p_stand_in RETURNING t.* INTO v_row;
    RETURN v_row;
END
$$;
