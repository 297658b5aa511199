-- Who may call the ledger's functions and see its tables: their owner alone, save that a shop's own server
-- (service_role) announces orders and reads the ledger. Run after every migrate.
DO $$
DECLARE
    v_function regprocedure;
    v_name text;
    v_role text;
    v_verbs constant text[] := ARRAY['expect_order'];
    v_others constant text[] := ARRAY[
        'receive_delivery', 'event_contradiction', 'ledger_differences', 'keep_repeat', 'apply_event', 'bring_forward',
        'payment_fault', 'fold_order', 'keep_apart', 'lock_payment', 'record_payment', 'update_order', 'judge_event', 'undo_refund', 'payment_rank',
        'money_has_come', 'start_fulfilment', 'reject_delivery', 'fulfil_again', 'handle_delivery', 'purge_deliveries'];
BEGIN
    FOR v_function, v_name IN
        SELECT p.oid::regprocedure, p.proname FROM pg_proc p
         WHERE p.pronamespace = 'public'::regnamespace AND p.proname = ANY (v_verbs || v_others)
           AND pg_has_role(p.proowner, 'USAGE')
    LOOP
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', v_function);
        FOR v_role IN SELECT r.rolname FROM pg_roles r
                       WHERE r.rolname IN ('opsconsole_worker', 'service_role', 'authenticated', 'anon') LOOP
            IF v_role IN ('opsconsole_worker', 'service_role') AND v_name = ANY (v_verbs) THEN
                EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %I', v_function, v_role);
            ELSE
                EXECUTE format('REVOKE ALL ON FUNCTION %s FROM %I', v_function, v_role);
            END IF;
        END LOOP;
    END LOOP;
END
$$;

DO $$
DECLARE
    v record;
BEGIN
    FOR v IN
        SELECT c.oid::regclass AS relation, c.relname, r.rolname
          FROM pg_class c JOIN pg_roles r ON r.rolname IN ('opsconsole_worker', 'service_role', 'authenticated', 'anon')
         WHERE c.relnamespace = 'public'::regnamespace AND pg_has_role(c.relowner, 'USAGE')
           AND c.relname IN ('transactions', 'order_payments', 'webhook_deliveries', 'fulfilments', 'reconciliations', 'reconciliation_rows')
    LOOP
        EXECUTE format('REVOKE ALL ON %s FROM %I', v.relation, v.rolname);
        IF v.rolname = 'service_role' AND v.relname = 'transactions' THEN
            EXECUTE format('GRANT SELECT ON %s TO %I', v.relation, v.rolname);
        END IF;
    END LOOP;
END
$$;
