-- What a person decides about a mismatch: p_accept applies what it says after all, its amount, currency and address
-- in place of the recorded ones; else it is set aside, as one that is signed but cannot be read may
-- be. Gives done, or skipped with the reason why.
CREATE OR REPLACE FUNCTION handle_delivery(p_delivery uuid, p_accept boolean, p_actor text, p_reason text)
RETURNS TABLE (outcome text, note text, transaction_id uuid, task_id uuid)
LANGUAGE plpgsql SET lock_timeout = '4s' AS $$
#variable_conflict use_column
DECLARE
    d webhook_deliveries;
    v_transaction uuid;
    v_task uuid;
    v record;
BEGIN
    -- In the order in which news of the payment locks them.
    PERFORM lock_payment(w.provider, w.payment_id) FROM webhook_deliveries w WHERE w.id = p_delivery AND w.payment_id IS NOT NULL;
    SELECT * INTO d FROM webhook_deliveries w WHERE w.id = p_delivery FOR NO KEY UPDATE;
    outcome := 'skipped';
    v_transaction := d.transaction_id;
    v_task := d.task_id;
    note := CASE
        WHEN NOT d.signed THEN 'nothing proves who sent it: nothing to decide'
        WHEN d.id IS NULL THEN 'there is no such delivery'
        WHEN d.handled_at IS NOT NULL THEN format('%s dealt with it already', d.handled_by)
        WHEN d.verdict NOT IN ('mismatch', 'rejected') THEN format('it is %s: nothing to decide', d.verdict)
        WHEN p_accept AND (d.verdict = 'rejected' OR d.claim ->> 'status' IS NULL) THEN 'it says nothing that could be recorded'
        END;
    IF note IS NULL AND p_accept THEN
        SELECT * INTO v FROM apply_event(d.provider, d.claim, d.id, false, true);
        IF v.verdict = 'mismatch' THEN
            note := v.reason;
        ELSE
            v_transaction := v.transaction_id;
            v_task := v.task_id;
        END IF;
    END IF;
    IF note IS NULL THEN
        outcome := 'done';
        note := CASE WHEN p_accept THEN 'accepted' ELSE 'set aside' END;
        UPDATE webhook_deliveries w
           SET handled_at = clock_timestamp(), handled_by = p_actor, handling = concat_ws(': ', note, nullif(p_reason, '')),
               transaction_id = v_transaction, task_id = v_task
         WHERE w.id = p_delivery;
    END IF;
    transaction_id := v_transaction;
    task_id := v_task;
    RETURN NEXT;
END
$$;
