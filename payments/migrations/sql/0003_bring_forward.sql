-- The part of apply_event about an order or a payment that is known: p_row is the order's row, locked, p_made whether
-- it was written just now, p_known the row that the payment p_pay is known by, if any. Gives the verdict and the row
-- as it is then; the row is unchanged by a mismatch.
CREATE OR REPLACE FUNCTION bring_forward(
    p_row transactions, p_made boolean, p_known transactions, p_pay order_payments, p_provider text, p_claim jsonb,
    p_hold boolean, p_accept boolean, OUT verdict text, OUT reason text, OUT changed boolean, OUT ledger_row transactions
)
LANGUAGE plpgsql AS $$
DECLARE
    v_new constant text := p_claim ->> 'status';
    v_payment constant text := p_claim ->> 'payment_id';
    v_folds constant boolean := p_known.id IS NOT NULL AND p_known.id <> p_row.id;
    v_row transactions := p_row;
    v_beside boolean;
    v_moved boolean;
    v_told boolean;
BEGIN
    IF p_made THEN
        v_row := p_known;
    END IF;
    reason := payment_fault(v_row, p_known, p_pay, p_provider, p_claim, p_accept);
    ledger_row := v_row;
    changed := false;
    IF reason IS NOT NULL THEN
        verdict := 'mismatch';
        IF p_made THEN
            DELETE FROM transactions t WHERE t.id = p_row.id;
        END IF;
        RETURN;
    END IF;
    IF v_folds THEN
        v_row := fold_order(p_known.id, p_row, p_made);
    END IF;
    v_beside := coalesce(money_has_come(v_row.status) AND v_row.payment_id <> v_payment, false);
    v_moved := record_payment(v_row.id, p_pay, p_provider, p_claim);
    -- Held only because nobody had told that it was paid in full.
    v_told := v_new = 'paid' AND v_row.status = 'partially_refunded' AND v_row.held_at IS NOT NULL AND NOT p_hold;
    ledger_row := v_row;
    IF v_moved OR v_told OR p_accept THEN
        ledger_row := update_order(v_row, p_provider, p_claim, v_told, p_accept);
    END IF;
    changed := v_moved OR v_folds OR v_told OR p_accept;
    SELECT j.verdict, j.reason INTO verdict, reason
      FROM judge_event(v_row, ledger_row, p_pay.status, v_moved, v_beside, p_accept, v_new) j;
    IF v_beside AND v_new = 'refunded' THEN
        -- What a person was to look at has gone back.
        UPDATE webhook_deliveries d
           SET handled_at = clock_timestamp(), handled_by = 'OpsConsole', handling = 'the payment was refunded in full'
         WHERE d.transaction_id = v_row.id AND d.payment_id = v_payment AND d.verdict = 'mismatch' AND d.handled_at IS NULL
           AND money_has_come(d.claim ->> 'status');
    END IF;
END
$$;
