-- Why a person must look at an event about a known order: what it says otherwise than the ledger (unless p_accept),
-- or that another payment than the recorded one paid or refunded it. Null: nothing.
CREATE OR REPLACE FUNCTION payment_fault(p_row transactions, p_provider text, p_claim jsonb, p_accept boolean) RETURNS text
LANGUAGE sql STABLE AS $$
SELECT CASE
    WHEN money_has_come(p_row.status) AND money_has_come(p_claim ->> 'status')
         AND p_row.payment_id <> p_claim ->> 'payment_id'
        THEN format('payment: recorded %s, delivered %s%s', p_row.payment_id, p_claim ->> 'payment_id',
                    CASE WHEN p_claim ->> 'status' = 'paid' THEN ', so the order was paid twice' ELSE '' END)
    WHEN p_row.payment_id IS DISTINCT FROM p_claim ->> 'payment_id' AND EXISTS (
            SELECT FROM transactions t
             WHERE t.provider = p_provider AND t.payment_id = p_claim ->> 'payment_id' AND t.id <> p_row.id)
        THEN format('payment %s: recorded for another order', p_claim ->> 'payment_id')
    WHEN NOT p_accept THEN ledger_differences(p_row, p_provider, p_claim)
    END
$$;
