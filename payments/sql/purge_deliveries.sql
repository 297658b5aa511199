-- Deletes deliveries that were kept long enough, p_chunk at most, and says how many. Rejected ones go first, then
-- repeats (duplicate, stale), then all others; a mismatch that nobody has dealt with stays.
CREATE OR REPLACE FUNCTION purge_deliveries(
    p_rejected interval, p_repeats interval, p_others interval, p_chunk integer DEFAULT 5000
) RETURNS integer
LANGUAGE plpgsql AS $$
DECLARE
    v_count integer;
BEGIN
    DELETE FROM webhook_deliveries WHERE id IN (
        SELECT d.id FROM webhook_deliveries d
         WHERE d.received_at < clock_timestamp() - least(p_rejected, p_repeats, p_others)
           AND d.received_at < clock_timestamp() - CASE WHEN d.verdict = 'rejected' THEN p_rejected
                                                        WHEN d.verdict IN ('duplicate', 'stale') THEN p_repeats
                                                        ELSE p_others END
           AND (d.verdict <> 'mismatch' OR d.handled_at IS NOT NULL)
         ORDER BY d.received_at, d.id LIMIT p_chunk FOR UPDATE SKIP LOCKED);
    GET DIAGNOSTICS v_count = ROW_COUNT;
    RETURN v_count;
END
$$;
