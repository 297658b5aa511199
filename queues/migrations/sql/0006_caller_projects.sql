-- Null for a caller that sees the tasks of every project (the owner, opsconsole_worker, service_role and
-- their members), else the projects that its claims name. Decides by the role that the caller has set,
-- which inside a SECURITY DEFINER function is still the caller's; where none is set, by its login.
CREATE OR REPLACE FUNCTION caller_projects() RETURNS text[]
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    v_role name := coalesce(nullif(current_setting('role'), 'none'), session_user);
BEGIN
    IF pg_has_role(v_role, current_user, 'USAGE')
       OR pg_has_role(v_role, to_regrole('service_role')::oid, 'USAGE')
       OR pg_has_role(v_role, to_regrole('opsconsole_worker')::oid, 'USAGE') THEN
        RETURN NULL;
    END IF;
    RETURN request_projects();
END
$$;
