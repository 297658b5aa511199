-- Writes into an order's row what an event of one of its payments brings, once that payment is recorded, and gives the
-- row. p_told: the news came for which a partly refunded order was held.
CREATE OR REPLACE FUNCTION update_order(p_row transactions, p_provider text, p_claim jsonb, p_told boolean, p_accept boolean)
RETURNS transactions
LANGUAGE plpgsql AS $$
DECLARE
    v_new constant text := p_claim ->> 'status';
    v_payment constant text := p_claim ->> 'payment_id';
    v_email constant text := p_claim ->> 'email';
    v_refunded constant bigint := coalesce((p_claim ->> 'refunded')::bigint, 0);
    v_paid constant boolean := money_has_come(p_row.status);
    v_again constant boolean := coalesce(v_paid AND p_row.payment_id <> v_payment, false);
    v_status text := v_new;
    v_counts text := v_payment;
    v_takes boolean;
    v_row transactions;
BEGIN
    IF v_again AND (v_new = 'refunded' OR NOT p_accept) OR v_paid AND NOT money_has_come(v_new) THEN
        RETURN p_row;
    END IF;
    IF NOT money_has_come(v_new) THEN
        SELECT p.status, p.payment_id INTO v_status, v_counts FROM order_payments p WHERE p.transaction_id = p_row.id
         ORDER BY p.status = 'authorized' DESC, p.status = 'failed' DESC, p.updated_at DESC LIMIT 1;
    ELSIF v_paid AND NOT v_again AND payment_rank(v_new) < payment_rank(p_row.status) THEN
        v_status := p_row.status;
    END IF;
    -- Where nothing was announced or paid, the newest attempt is all there is.
    v_takes := v_counts = v_payment AND (p_accept OR p_row.expected_at IS NULL AND NOT v_paid);
    UPDATE transactions t
       SET provider = CASE WHEN v_takes THEN p_provider ELSE t.provider END,
           status = v_status,
           payment_id = v_counts,
           amount = CASE WHEN v_takes THEN (p_claim ->> 'amount')::bigint ELSE t.amount END,
           currency = CASE WHEN v_takes THEN p_claim ->> 'currency' ELSE t.currency END,
           refunded = CASE WHEN v_again THEN v_refunded ELSE greatest(t.refunded, v_refunded) END,
           expected_email = CASE WHEN v_takes AND t.expected_email IS NOT NULL THEN coalesce(v_email, t.expected_email)
                                 ELSE t.expected_email END,
           -- An attempt's address is not that of another payment.
           email = CASE WHEN v_paid AND NOT v_takes THEN coalesce(t.email, v_email)
                        ELSE coalesce(CASE WHEN NOT p_accept THEN t.expected_email END, v_email, t.expected_email,
                                      CASE WHEN v_paid OR t.payment_id = v_payment THEN t.email END) END,
           paid_at = CASE WHEN NOT money_has_come(v_status) THEN t.paid_at
                          WHEN v_again THEN clock_timestamp()
                          ELSE coalesce(t.paid_at, clock_timestamp()) END,
           held_at = CASE WHEN NOT (p_told OR v_again) THEN t.held_at END,
           task_id = CASE WHEN NOT v_again OR t.fulfilled_at IS NOT NULL THEN t.task_id END,
           updated_at = clock_timestamp()
     WHERE t.id = p_row.id RETURNING t.* INTO v_row;
    RETURN v_row;
END
$$;
