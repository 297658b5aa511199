-- Announces an order before its money comes, so that what comes can be compared: writes it as created and gives
-- created = true. One that is known already gives created = false, and difference says what was announced or
-- paid otherwise; if nothing, an address that was not known is taken. An order of which only payments were heard becomes expected where the money agrees, and
-- is fulfilled if it was held. p_amount in minor units. Errors: 22023 a value that no order can have, with what to mend.
CREATE OR REPLACE FUNCTION expect_order(
    p_order_id text, p_amount bigint, p_currency text DEFAULT 'INR', p_email text DEFAULT NULL, p_provider text DEFAULT 'razorpay'
) RETURNS TABLE (id uuid, created boolean, status text, difference text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp SET lock_timeout = '4s' AS $$
#variable_conflict use_column
DECLARE
    v_email constant text := nullif(btrim(p_email), '');
    v_row transactions;
    v_fault constant text := CASE
        WHEN p_order_id IS NULL OR btrim(p_order_id) = '' OR length(p_order_id) > 500 THEN 'order_id is a text of 1 to 500 characters'
        WHEN p_amount IS NULL OR p_amount < 0 OR p_amount > 9007199254740992 THEN 'amount is a whole number of minor units, 0 to 2^53'
        WHEN p_currency IS NULL OR p_currency !~ '^[A-Z]{3}$' THEN 'currency is three capital letters'
        WHEN length(v_email) > 320 THEN 'email is at most 320 characters long'
        WHEN p_provider IS NULL OR p_provider !~ '^[a-z0-9_-]{1,50}$' THEN 'provider is the name of a provider, such as razorpay'
        END;
BEGIN
    IF v_fault IS NOT NULL THEN
        RAISE EXCEPTION '%', v_fault USING ERRCODE = 'invalid_parameter_value';
    END IF;
    LOOP
        INSERT INTO transactions AS t (provider, order_id, email, expected_email, amount, currency, status, expected_at)
        VALUES (p_provider, p_order_id, v_email, v_email, p_amount, p_currency, 'created', clock_timestamp())
        ON CONFLICT (order_id) DO NOTHING RETURNING t.* INTO v_row;
        created := v_row.id IS NOT NULL;
        EXIT WHEN created;
        SELECT * INTO v_row FROM transactions t WHERE t.order_id = p_order_id FOR NO KEY UPDATE;
        -- Else it was folded into another row while we waited for it.
        EXIT WHEN FOUND;
    END LOOP;
    difference := ledger_differences(v_row, p_provider,
        jsonb_build_object('amount', p_amount, 'currency', p_currency, 'email', v_email));
    IF NOT created AND difference IS NULL AND (v_row.expected_at IS NULL OR v_row.expected_email IS NULL AND v_email IS NOT NULL) THEN
        UPDATE transactions t
           SET provider = p_provider, amount = p_amount, currency = p_currency, expected_at = coalesce(t.expected_at, clock_timestamp()),
               expected_email = v_email,
               email = CASE WHEN money_has_come(t.status) THEN coalesce(t.email, v_email) ELSE coalesce(v_email, t.email) END,
               updated_at = clock_timestamp()
         WHERE t.id = v_row.id;
        IF v_row.held_at IS NOT NULL AND v_row.status IN ('paid', 'partially_refunded') THEN
            PERFORM start_fulfilment(v_row.id, NULL);
        END IF;
    END IF;
    id := v_row.id;
    status := v_row.status;
    RETURN NEXT;
END
$$;
