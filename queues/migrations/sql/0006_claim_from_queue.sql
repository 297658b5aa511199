-- claim_tasks for one queue: what the functions of existing callers are built on.
CREATE OR REPLACE FUNCTION claim_from_queue(
    p_worker text, p_queue text, p_limit integer, p_tenants text[] DEFAULT NULL, p_tenant_cap integer DEFAULT NULL
) RETURNS SETOF tasks
LANGUAGE sql AS $$
SELECT * FROM claim_tasks(p_worker, ARRAY[p_queue], p_limit, p_tenants, p_tenant_cap)
$$;
