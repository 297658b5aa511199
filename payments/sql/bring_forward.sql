-- The part of apply_event about an order or a payment that is known: p_row is the order's row, locked, p_made whether
-- it was written just now, p_known the row that the payment p_pay is known by, if any: p_row, another order's, or a
-- stand-in that goes by the payment's id. Gives the verdict and the row as it is then; a mismatch moves no money.
CREATE OR REPLACE FUNCTION bring_forward(
    p_row transactions, p_made boolean, p_known transactions, p_pay order_payments, p_provider text, p_claim jsonb,
    p_hold boolean, p_accept boolean, OUT verdict text, OUT reason text, OUT changed boolean, OUT ledger_row transactions
) RETURNS record
LANGUAGE plpgsql AS $$
DECLARE
    v_new constant text := p_claim ->> 'status';
    v_payment constant text := p_claim ->> 'payment_id';
    v_stands_in constant boolean := coalesce(
        p_known.id <> p_row.id AND p_known.order_id = v_payment AND p_known.expected_at IS NULL, false);
    v_folds boolean := v_stands_in;
    v_row transactions := p_row;
    v_beside boolean;
    v_moved boolean;
    v_told boolean;
    v_learns boolean;
BEGIN
    IF v_stands_in AND NOT p_made AND NOT money_has_come(p_known.status) THEN
        -- An attempt, named now: the order's row stays.
        v_row := fold_order(p_known, p_row, false, false);
    ELSIF v_stands_in AND NOT p_made AND money_has_come(p_row.status) AND 'refunded' IN (v_new, p_pay.status) THEN
        -- Money beside that of the order went back where it is recorded.
        v_row := p_known;
        v_folds := false;
    ELSIF p_made AND (v_stands_in OR NOT p_accept OR money_has_come(p_pay.status)) THEN
        v_row := p_known;
    END IF;
    reason := payment_fault(v_row, p_known, p_pay, p_provider, p_claim, p_accept);
    ledger_row := v_row;
    changed := false;
    IF reason IS NOT NULL THEN
        verdict := 'mismatch';
        PERFORM keep_apart(p_row, p_made, p_known, p_pay, p_provider, v_payment);
        RETURN;
    END IF;
    IF v_folds AND (p_made OR money_has_come(p_known.status)) THEN
        v_row := fold_order(p_known, p_row, p_made, p_accept);
    END IF;
    v_beside := coalesce(money_has_come(v_row.status) AND v_row.payment_id <> v_payment, false);
    v_moved := record_payment(v_row.id, p_pay, p_provider, p_claim);
    -- Held only because nobody had told that it was paid in full.
    v_told := v_new = 'paid' AND v_row.status = 'partially_refunded' AND v_row.held_at IS NOT NULL AND NOT p_hold;
    v_learns := v_row.email IS NULL AND p_claim ->> 'email' IS NOT NULL AND money_has_come(v_new) AND NOT v_beside;
    ledger_row := v_row;
    IF v_moved OR v_folds OR v_told OR v_learns OR p_accept THEN
        ledger_row := update_order(v_row, p_provider, p_claim, v_told, p_accept);
    END IF;
    changed := v_moved OR v_folds OR v_told OR v_learns OR p_accept;
    SELECT j.verdict, j.reason INTO verdict, reason
      FROM judge_event(v_row, ledger_row, p_pay.status, v_moved, v_beside, p_accept, v_new) j;
    IF v_new = 'refunded' AND v_moved THEN
        -- What a person was to look at has gone back.
        UPDATE webhook_deliveries d
           SET handled_at = clock_timestamp(), handled_by = 'OpsConsole', handling = 'the payment was refunded in full'
         WHERE d.provider = p_provider AND d.payment_id = v_payment AND d.verdict IN ('mismatch', 'rejected') AND d.signed
           AND d.handled_at IS NULL AND money_has_come(d.claim ->> 'status')
           AND EXISTS (SELECT FROM transactions t
                        WHERE t.id = d.transaction_id AND money_has_come(t.status) AND t.payment_id <> v_payment);
    END IF;
END
$$;
