-- Who may call what. Nobody but the owner touches our functions, except that foreign workers, through
-- their roles where these exist, may call the verbs of a worker.
DO $$
DECLARE
    v_function regprocedure;
    v_name text;
    v_role text;
    v_verbs constant text[] := ARRAY[
        'enqueue_task', 'enqueue_tasks', 'create_task', 'register_worker', 'claim_tasks', 'claim_next_task',
        'heartbeat', 'worker_idle', 'unregister_worker', 'complete_task', 'complete_tasks', 'fail_task', 'fail_tasks',
        'release_tasks', 'report_progress'];
    v_others constant text[] := ARRAY[
        'refuse_illegal_transition', 'hold_until_due', 'wake_workers', 'promote_due', 'seat_worker',
        'settle_dependants', 'lock_with_dependants', 'mark_workers_gone', 'rescue_lost', 'retry_tasks',
        'requeue_tasks', 'cancel_tasks', 'require_read_committed', 'lost_sentence', 'stuck_reason', 'retry_delay', 'attempt_record', 'add_error'];
BEGIN
    FOR v_function, v_name IN
        SELECT p.oid::regprocedure, p.proname FROM pg_proc p
         WHERE p.pronamespace = 'public'::regnamespace AND p.proname = ANY (v_verbs || v_others)
           AND pg_has_role(p.proowner, 'USAGE')
    LOOP
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', v_function);
        FOR v_role IN SELECT r.rolname FROM pg_roles r WHERE r.rolname IN ('opsconsole_worker', 'service_role') LOOP
            IF v_name = ANY (v_verbs) THEN
                EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %I', v_function, v_role);
            END IF;
        END LOOP;
    END LOOP;
END
$$;
