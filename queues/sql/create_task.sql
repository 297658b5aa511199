-- enqueue_task under the name and with the two arguments that existing callers use; gives the id. A
-- caller that is bound to projects names one of them as project_id in the payload, or has only one.
-- Error 42501 for any other project.
CREATE OR REPLACE FUNCTION create_task(type text, payload jsonb DEFAULT '{}') RETURNS SETOF uuid
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
#variable_conflict use_variable
DECLARE
    v_projects text[] := caller_projects();
    v_project text;
BEGIN
    IF v_projects IS NOT NULL THEN
        v_project := coalesce(payload ->> 'project_id', CASE WHEN cardinality(v_projects) = 1 THEN v_projects[1] END);
        IF v_project IS NULL OR v_project <> ALL (v_projects) THEN
            RAISE EXCEPTION 'not a project of yours: %', coalesce(v_project, 'none was given')
                USING ERRCODE = 'insufficient_privilege', HINT = 'Name one of your projects as "project_id" in the payload.';
        END IF;
    END IF;
    RETURN QUERY SELECT e.id FROM enqueue_task(type, payload, p_tenant_id => v_project) e;
END
$$;
