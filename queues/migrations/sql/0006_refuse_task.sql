-- Raises the error that names the rule which a row of tasks breaks, as a constraint's error does.
CREATE OR REPLACE FUNCTION refuse_task(p_rule text) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'new row for relation "tasks" violates check constraint "%"', p_rule
        USING ERRCODE = 'check_violation', CONSTRAINT = p_rule, TABLE = 'tasks', SCHEMA = 'public';
END
$$;
