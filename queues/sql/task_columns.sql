-- The columns of a task, for statements that move whole rows between tasks and tasks_archive.
CREATE OR REPLACE FUNCTION task_columns() RETURNS text
LANGUAGE sql STABLE AS $$
    SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum)
      FROM pg_attribute a WHERE a.attrelid = 'tasks'::regclass AND a.attnum > 0 AND NOT a.attisdropped
$$;
