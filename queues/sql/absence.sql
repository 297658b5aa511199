-- Why tasks holds no such task: the archive has it, where only retry_tasks and run_again reach it, or
-- nobody has.
CREATE OR REPLACE FUNCTION absence(p_id uuid) RETURNS text
LANGUAGE sql STABLE AS $$
SELECT CASE WHEN EXISTS (SELECT FROM tasks_archive a WHERE a.id = p_id) THEN 'it is archived' ELSE 'it does not exist' END
$$;
