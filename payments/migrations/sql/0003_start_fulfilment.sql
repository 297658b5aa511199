-- Enqueues the fulfilment of an order, due after p_delay, and gives its task; the one that lives already, if there is one.
CREATE OR REPLACE FUNCTION start_fulfilment(p_transaction uuid, p_delivery uuid, p_delay interval DEFAULT NULL) RETURNS uuid
LANGUAGE plpgsql AS $$
DECLARE
    v_row transactions;
    v_task uuid;
BEGIN
    SELECT * INTO STRICT v_row FROM transactions t WHERE t.id = p_transaction;
    SELECT e.id INTO v_task FROM enqueue_task(
        'payments.fulfil', jsonb_build_object('transaction_id', v_row.id, 'order_id', v_row.order_id), p_queue => 'payments',
        p_run_at => clock_timestamp() + p_delay,
        p_dedupe_key => v_row.id::text, p_max_attempts => 10, p_timeout => interval '1 minute',
        p_correlation_id => coalesce(p_delivery, v_row.id)::text) e;
    UPDATE transactions t SET task_id = v_task, held_at = NULL, updated_at = clock_timestamp() WHERE t.id = p_transaction;
    RETURN v_task;
END
$$;
