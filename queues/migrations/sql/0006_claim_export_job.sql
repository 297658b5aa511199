-- Gives the oldest due task of queue `exports` whose organization (tenant) has less than p_max_concurrent
-- processing, or no row; tasks without an organization share one count. Exact under any number of
-- callers. The task is held by the database session and returns by timeout alone.
CREATE OR REPLACE FUNCTION claim_export_job(p_max_concurrent integer DEFAULT 3)
RETURNS TABLE (id uuid, organization_id text, work_record_id text, export_type text, filters jsonb,
               created_by text, created_at timestamptz, started_at timestamptz)
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
SELECT c.id, c.tenant_id, c.payload ->> 'work_record_id', coalesce(c.payload ->> 'export_type', c.type),
       coalesce(c.payload -> 'filters', '{}'), c.payload ->> 'created_by', c.created_at, c.started_at
  FROM claim_from_queue(session_worker(), 'exports', 1, caller_projects(), coalesce(p_max_concurrent, 3)) c
$$;
