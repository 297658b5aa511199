-- Deletes deliveries that were kept long enough, p_chunk at most, and says how many. Rejected ones go first, then
-- repeats (duplicate, stale), then all others; a mismatch that nobody has dealt with stays.
CREATE OR REPLACE FUNCTION purge_deliveries(
    p_rejected interval, p_repeats interval, p_others interval, p_chunk integer DEFAULT 5000
) RETURNS integer
LANGUAGE plpgsql AS $$
DECLARE
    v_count integer;
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtext('payments.purge')) THEN
        RETURN 0;
    END IF;
    -- Each by the index of its own kind: the rest is kept for years, and is not walked for these.
    DELETE FROM webhook_deliveries WHERE id = ANY (ARRAY(
        SELECT d.id FROM webhook_deliveries d
         WHERE d.verdict = 'rejected' AND d.received_at < clock_timestamp() - p_rejected
         ORDER BY d.received_at LIMIT p_chunk)
        || ARRAY(
        SELECT d.id FROM webhook_deliveries d
         WHERE d.verdict IN ('duplicate', 'stale') AND d.received_at < clock_timestamp() - p_repeats
         ORDER BY d.received_at, d.id LIMIT p_chunk)
        || ARRAY(
        SELECT d.id FROM webhook_deliveries d
         WHERE d.received_at < clock_timestamp() - p_others AND d.verdict NOT IN ('rejected', 'duplicate', 'stale')
           AND (d.verdict <> 'mismatch' OR d.handled_at IS NOT NULL)
         ORDER BY d.received_at, d.id LIMIT p_chunk));
    GET DIAGNOSTICS v_count = ROW_COUNT;
    RETURN v_count;
END
$$;
