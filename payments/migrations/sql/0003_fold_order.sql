-- Makes one row of two for the same order and gives it: p_stand_in goes by its payment's id, p_named has the order's
-- name, and only one of them may have seen money. The stand-in stays, with its task and its record of fulfilment, where
-- it has seen money or p_named was made just now (p_made); it takes the name and, unless p_made, the announcement, and is
-- held no longer where the order was announced or p_release. Else p_named stays as it is.
CREATE OR REPLACE FUNCTION fold_order(p_stand_in transactions, p_named transactions, p_made boolean, p_release boolean)
RETURNS transactions
LANGUAGE plpgsql AS $$
DECLARE
    v_takes constant boolean := p_made OR money_has_come(p_stand_in.status);
    v_stays constant uuid := CASE WHEN v_takes THEN p_stand_in.id ELSE p_named.id END;
    v_goes constant uuid := CASE WHEN v_takes THEN p_named.id ELSE p_stand_in.id END;
    v_released constant boolean := p_release OR p_named.expected_at IS NOT NULL;
    v_row transactions;
BEGIN
    -- Waits for a fulfilment that is under way, and for whoever writes down a delivery of either.
    PERFORM FROM transactions t WHERE t.id IN (p_stand_in.id, p_named.id) ORDER BY t.id = p_stand_in.id FOR UPDATE;
    UPDATE order_payments p SET transaction_id = v_stays WHERE p.transaction_id = v_goes;
    UPDATE webhook_deliveries d SET transaction_id = v_stays WHERE d.transaction_id = v_goes;
    UPDATE reconciliation_rows r SET transaction_id = v_stays
     WHERE r.order_id IN (p_stand_in.order_id, p_named.order_id) AND r.transaction_id = v_goes;
    DELETE FROM transactions t WHERE t.id = v_goes;
    IF NOT v_takes THEN
        RETURN p_named;
    END IF;
    UPDATE fulfilments f SET order_id = p_named.order_id WHERE f.transaction_id = v_stays;
    UPDATE transactions t
       SET order_id = p_named.order_id,
           provider = CASE WHEN p_made THEN t.provider ELSE p_named.provider END,
           amount = CASE WHEN p_made THEN t.amount ELSE p_named.amount END,
           currency = CASE WHEN p_made THEN t.currency ELSE p_named.currency END,
           expected_at = p_named.expected_at,
           expected_email = p_named.expected_email,
           email = coalesce(p_named.expected_email, t.email),
           held_at = CASE WHEN NOT v_released THEN t.held_at END,
           -- The task of one that was held may have ended without fulfilling it.
           task_id = CASE WHEN NOT v_released OR t.held_at IS NULL THEN t.task_id END,
           created_at = least(t.created_at, p_named.created_at),
           updated_at = clock_timestamp()
     WHERE t.id = v_stays RETURNING t.* INTO v_row;
    RETURN v_row;
END
$$;
