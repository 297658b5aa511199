-- Suits the plans of an operators' verb to the number of its tasks, until the verb ends. Statistics cannot:
-- where tasks was analysed while it was empty, the planner expects one row of it and compares each of
-- 20,000 ids with each, for a minute. Many ids are joined by hashing, a few by the index.
CREATE OR REPLACE FUNCTION plan_for(p_ids integer) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('enable_nestloop', CASE WHEN p_ids > 1000 THEN 'off' ELSE 'on' END, true);
END
$$;
