-- Refuses any table name but tasks: existing callers name the table, and there is this one.
CREATE OR REPLACE FUNCTION require_tasks_table(p_table_name text) RETURNS void
LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    IF p_table_name IS DISTINCT FROM 'tasks' THEN
        RAISE EXCEPTION 'there is no table of tasks named "%"', coalesce(p_table_name, 'null')
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Every task is in the table "tasks": leave p_table_name out.';
    END IF;
END
$$;
