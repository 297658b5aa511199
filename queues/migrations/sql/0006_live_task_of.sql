-- The live task of a tenant and type that holds this dedupe key, or null.
CREATE OR REPLACE FUNCTION live_task_of(p_tenant_id text, p_type text, p_dedupe_key text) RETURNS uuid
LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    RETURN (SELECT t.id FROM tasks t
             WHERE coalesce(t.tenant_id, '') = coalesce(p_tenant_id, '') AND t.type = p_type
               AND t.dedupe_key = p_dedupe_key AND t.status IN ('blocked', 'scheduled', 'pending', 'processing'));
END
$$;
