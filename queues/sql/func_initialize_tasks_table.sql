-- True when the table tasks has every column that existing callers read. Creates nothing: error 42703
-- names what is missing or of another type.
CREATE OR REPLACE FUNCTION func_initialize_tasks_table(p_table_name text DEFAULT 'tasks') RETURNS boolean
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    v_wrong text;
BEGIN
    PERFORM require_tasks_table(p_table_name);
    SELECT string_agg(c.name || ' ' || c.type, ', ' ORDER BY c.name) INTO v_wrong
      FROM (VALUES ('id', 'uuid'), ('queue', 'text'), ('type', 'text'), ('payload', 'jsonb'), ('status', 'text'),
                   ('tenant_id', 'text'), ('attempts', 'integer'), ('worker_id', 'text'), ('result', 'jsonb'),
                   ('output_location', 'text'), ('error', 'text'), ('run_at', 'timestamp with time zone'),
                   ('created_at', 'timestamp with time zone'), ('started_at', 'timestamp with time zone'),
                   ('completed_at', 'timestamp with time zone'), ('updated_at', 'timestamp with time zone')) c(name, type)
     WHERE NOT EXISTS (SELECT FROM pg_attribute a
                        WHERE a.attrelid = to_regclass('public.tasks') AND a.attname = c.name AND NOT a.attisdropped
                          AND format_type(a.atttypid, NULL) = c.type);
    IF v_wrong IS NOT NULL THEN
        RAISE EXCEPTION 'the table tasks lacks: %', v_wrong
            USING ERRCODE = 'undefined_column', HINT = 'Run manage.py migrate; then manage.py doctor.';
    END IF;
    RETURN true;
END
$$;
