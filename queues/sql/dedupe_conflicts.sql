-- Which of these tasks cannot be live because of their dedupe key, and why: a live task holds it, or an
-- earlier one of these has the same. The caller has locked them; a key that is taken meanwhile still
-- violates the unique index.
CREATE OR REPLACE FUNCTION dedupe_conflicts(p_ids uuid[]) RETURNS TABLE (id uuid, note text)
LANGUAGE sql STABLE AS $$
SELECT k.id, CASE WHEN k.held THEN 'another live task holds its dedupe key ' || k.dedupe_key
                  ELSE 'task ' || k.first || ', which comes first, has the same dedupe key ' || k.dedupe_key END
  FROM (SELECT t.id, t.dedupe_key,
               first_value(t.id) OVER (PARTITION BY coalesce(t.tenant_id, ''), t.type, t.dedupe_key ORDER BY t.id) AS first,
               EXISTS (SELECT FROM tasks o
                        WHERE coalesce(o.tenant_id, '') = coalesce(t.tenant_id, '') AND o.type = t.type
                          AND o.dedupe_key = t.dedupe_key AND o.status IN ('blocked', 'scheduled', 'pending', 'processing')) AS held
          FROM tasks t WHERE t.id = ANY (p_ids) AND t.dedupe_key IS NOT NULL) k
 WHERE k.held OR k.first <> k.id
$$;
