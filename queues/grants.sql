-- Who may call what. Nobody but the owner touches our functions and tables, except that foreign workers,
-- through their roles where these exist, may call the verbs of a worker. `authenticated` may call those
-- that keep to the projects of its claims; `anon` none. What a hosting service grants by default on new
-- tables and functions is taken back.
-- Who may create functions in public could lay one of theirs over ours: PostgreSQL itself gives this to
-- nobody from version 15 on.
DO $$
BEGIN
    REVOKE CREATE ON SCHEMA public FROM PUBLIC;
EXCEPTION WHEN insufficient_privilege THEN
    RAISE WARNING 'Could not revoke CREATE on schema public from PUBLIC: its owner should.';
END
$$;

DO $$
DECLARE
    v_function regprocedure;
    v_name text;
    v_role text;
    v_verbs constant text[] := ARRAY[
        'enqueue_task', 'enqueue_tasks', 'create_task', 'register_worker', 'claim_tasks', 'claim_next_task',
        'heartbeat', 'worker_idle', 'worker_busy', 'unregister_worker', 'complete_task', 'complete_tasks', 'fail_task', 'fail_tasks',
        'release_tasks', 'report_progress', 'limits_wait', 'claim_export_job', 'claim_job', 'func_claim_available_task',
        'func_update_task_status', 'complete_task_with_timing', 'func_mark_task_failed', 'func_initialize_tasks_table',
        'func_migrate_tasks_for_task_type', 'invoke_bubble_sync_processor', 'invoke_bubble_sync_retry',
        'caller_projects', 'request_projects'];
    v_users constant text[] := ARRAY[
        'create_task', 'claim_next_task', 'claim_export_job', 'claim_job', 'func_claim_available_task',
        'func_update_task_status', 'complete_task_with_timing', 'func_mark_task_failed', 'func_initialize_tasks_table',
        'func_migrate_tasks_for_task_type', 'caller_projects', 'request_projects'];
    v_others constant text[] := ARRAY[
        'session_worker', 'status_to_word', 'word_to_status', 'require_tasks_table', 'settle_without_lease', 'request_sync',
        'settle_direct_update',
        'wake_workers', 'promote_due', 'seat_worker',
        'settle_dependants', 'lock_with_dependants', 'mark_workers_gone', 'rescue_lost', 'retry_tasks',
        'requeue_tasks', 'cancel_tasks', 'require_read_committed', 'lost_sentence', 'stuck_reason', 'retry_delay', 'attempt_record', 'add_error',
        'set_priority', 'move_tasks', 'release_held', 'rescue_tasks', 'run_again', 'pause_queue', 'resume_queue',
        'archive_finished', 'unarchive_tasks', 'predecessor_states', 'make_archive_partitions', 'drop_old_archives',
        'archive_days', 'task_columns',
        'claim_from_queue', 'lock_limited', 'enqueue_all', 'claim_heads', 'move_heads', 'pick_pending', 'pick_between', 'pick_limited', 'pick_lanes',
        'settle_completed', 'has_dependants', 'know_queue', 'keep_used_queue', 'guard_insert', 'guard_update', 'task_fault',
        'refuse_task', 'require_queue', 'jsonb_too_large', 'enqueue_once',
        'enqueue_after', 'live_task_of', 'next_round', 'assign_rounds',
        'wake_queues_of', 'plan_for', 'absence', 'dedupe_conflicts'];
BEGIN
    FOR v_function, v_name IN
        SELECT p.oid::regprocedure, p.proname FROM pg_proc p
         WHERE p.pronamespace = 'public'::regnamespace AND p.proname = ANY (v_verbs || v_others)
           AND pg_has_role(p.proowner, 'USAGE')
    LOOP
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', v_function);
        FOR v_role IN SELECT r.rolname FROM pg_roles r
                       WHERE r.rolname IN ('opsconsole_worker', 'service_role', 'authenticated', 'anon') LOOP
            IF v_name = ANY (CASE v_role WHEN 'authenticated' THEN v_users WHEN 'anon' THEN '{}' ELSE v_verbs END) THEN
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
        SELECT c.oid::regclass AS relation, r.rolname
          FROM pg_class c JOIN pg_roles r ON r.rolname IN ('opsconsole_worker', 'service_role', 'authenticated', 'anon')
         WHERE c.relnamespace = 'public'::regnamespace AND pg_has_role(c.relowner, 'USAGE')
           AND c.relname IN ('tasks', 'task_dependencies', 'workers', 'queues', 'operations', 'operation_items',
                             'tasks_archive', 'tasks_archive_default', 'archive_marks', 'all_tasks',
                             'project_members', 'endpoints', 'queue_overview')
    LOOP
        EXECUTE format('REVOKE ALL ON %s FROM %I', v.relation, v.rolname);
    END LOOP;
    FOR v IN
        SELECT g.relation, g.privileges, g.condition, r.rolname, g.relation || '_for_' || r.rolname AS policy
          FROM (VALUES ('tasks', 'service_role', 'SELECT, INSERT, UPDATE', 'true'),
                       ('workers', 'service_role', 'SELECT', 'true'),
                       ('project_members', 'service_role', 'SELECT, INSERT, UPDATE, DELETE', 'true'),
                       ('tasks', 'authenticated', 'SELECT', 'tenant_id = ANY ((SELECT request_projects())::text[])'),
                       ('queue_overview', 'service_role', 'SELECT', NULL),
                       ('queue_overview', 'opsconsole_worker', 'SELECT', NULL),
                       ('queue_overview', 'authenticated', 'SELECT', NULL)) g(relation, role, privileges, condition)
          JOIN pg_roles r ON r.rolname = g.role
          JOIN pg_class c ON c.oid = to_regclass('public.' || g.relation) AND pg_has_role(c.relowner, 'USAGE')
    LOOP
        EXECUTE format('GRANT %s ON %I TO %I', v.privileges, v.relation, v.rolname);
        IF v.condition IS NOT NULL AND NOT EXISTS (
            SELECT FROM pg_policies p WHERE p.schemaname = 'public' AND p.tablename = v.relation AND p.policyname = v.policy) THEN
            EXECUTE format('CREATE POLICY %I ON %I FOR ALL TO %I USING (%s)', v.policy, v.relation, v.rolname, v.condition);
        END IF;
    END LOOP;
END
$$;
