-- A person's word that a paid order is to be fulfilled: releases one that is held, and starts anew one whose task
-- ended without fulfilling it. Gives done, or skipped with the reason why nothing was done.
CREATE OR REPLACE FUNCTION fulfil_again(p_transaction uuid) RETURNS TABLE (outcome text, note text, task_id uuid)
LANGUAGE plpgsql SET lock_timeout = '4s' AS $$
#variable_conflict use_column
DECLARE
    v_row transactions;
BEGIN
    SELECT * INTO v_row FROM transactions t WHERE t.id = p_transaction FOR NO KEY UPDATE;
    note := CASE
        WHEN v_row.id IS NULL THEN 'there is no such transaction'
        WHEN v_row.fulfilled_at IS NOT NULL THEN 'it was fulfilled already'
        WHEN v_row.status NOT IN ('paid', 'partially_refunded') THEN format('it is %s, not paid', replace(v_row.status, '_', ' '))
        WHEN v_row.held_at IS NULL AND EXISTS (SELECT FROM tasks t WHERE t.id = v_row.task_id AND t.status IN ('blocked', 'scheduled', 'pending', 'processing'))
            THEN 'its fulfilment is on its way'
        END;
    outcome := CASE WHEN note IS NULL THEN 'done' ELSE 'skipped' END;
    task_id := CASE WHEN note IS NULL THEN start_fulfilment(p_transaction, NULL) ELSE v_row.task_id END;
    RETURN NEXT;
END
$$;
