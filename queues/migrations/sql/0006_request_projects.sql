-- The projects of the user whom the request names: the claim `sub` of the setting request.jwt.claims,
-- looked up in project_members. No claims, or malformed ones, mean no project.
CREATE OR REPLACE FUNCTION request_projects() RETURNS text[]
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    v_user text;
BEGIN
    BEGIN
        v_user := current_setting('request.jwt.claims', true)::jsonb ->> 'sub';
    EXCEPTION WHEN data_exception OR statement_too_complex THEN
        RETURN '{}';
    END;
    RETURN ARRAY(SELECT m.project_id FROM project_members m WHERE m.user_id = v_user ORDER BY m.project_id);
END
$$;
