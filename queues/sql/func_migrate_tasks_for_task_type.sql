-- True when every task carries its type in a column of its own, which existing callers read as task_type.
-- Changes nothing: error 42703 says what is wrong.
CREATE OR REPLACE FUNCTION func_migrate_tasks_for_task_type(p_table_name text DEFAULT 'tasks') RETURNS boolean
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    PERFORM func_initialize_tasks_table(p_table_name);
    IF NOT EXISTS (SELECT FROM pg_attribute a
                    WHERE a.attrelid = 'public.tasks'::regclass AND a.attname = 'type' AND a.attnotnull) THEN
        RAISE EXCEPTION 'the column type of the table tasks may be empty'
            USING ERRCODE = 'undefined_column', HINT = 'Run manage.py migrate; then manage.py doctor.';
    END IF;
    RETURN true;
END
$$;
