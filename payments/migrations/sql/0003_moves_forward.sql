-- Whether an event moves an order on. A failure counts only for the payment that is recorded, and what follows a
-- failure only for a payment of which no failure is known, or where it says that money came.
CREATE OR REPLACE FUNCTION moves_forward(p_row transactions, p_new text, p_payment_id text, p_refunded bigint) RETURNS boolean
LANGUAGE sql STABLE AS $$
SELECT CASE p_row.status
    WHEN 'created' THEN p_new IN ('authorized', 'paid', 'failed', 'partially_refunded', 'refunded')
    WHEN 'authorized' THEN p_new IN ('paid', 'partially_refunded', 'refunded')
                           OR p_new = 'failed' AND p_payment_id IS NOT DISTINCT FROM coalesce(p_row.payment_id, p_payment_id)
    WHEN 'failed' THEN p_new IN ('paid', 'partially_refunded', 'refunded')
                       OR p_new = 'authorized' AND p_payment_id IS DISTINCT FROM p_row.payment_id AND NOT EXISTS (
                              SELECT FROM webhook_deliveries d
                               WHERE d.transaction_id = p_row.id AND d.payment_id = p_payment_id
                                 AND d.verdict IN ('accepted', 'stale') AND d.claim ->> 'status' = 'failed')
    WHEN 'paid' THEN p_new IN ('partially_refunded', 'refunded')
    WHEN 'partially_refunded' THEN p_new = 'refunded' OR p_new = 'partially_refunded' AND p_refunded > p_row.refunded
    ELSE false END
$$;
