-- The UTC days that have a partition of tasks_archive, oldest first.
CREATE OR REPLACE FUNCTION archive_days() RETURNS TABLE (day date, partition text)
LANGUAGE sql STABLE AS $$
    SELECT to_date(right(c.relname, 8), 'YYYYMMDD'), c.relname::text
      FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
     WHERE i.inhparent = 'tasks_archive'::regclass AND c.relname ~ '^tasks_archive_\d{8}$' ORDER BY 1
$$;
