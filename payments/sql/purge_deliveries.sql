-- Deletes deliveries that were kept long enough, p_chunk of a kind at most, and says how many: unsigned ones (rejected),
-- repeats (duplicate, stale), and all others; what still waits for a person stays.
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
    -- Against the statement's clock, which an index can be searched by. Each by the index of its own kind: the rest is kept for years, and is not walked for these.
    DELETE FROM webhook_deliveries WHERE id = ANY (ARRAY(
        SELECT d.id FROM webhook_deliveries d
         WHERE d.verdict = 'rejected' AND NOT d.signed AND d.received_at < statement_timestamp() - p_rejected
         ORDER BY d.received_at LIMIT p_chunk)
        || ARRAY(
        SELECT d.id FROM webhook_deliveries d
         WHERE d.verdict IN ('duplicate', 'stale') AND d.received_at < statement_timestamp() - p_repeats
         ORDER BY d.received_at, d.id LIMIT p_chunk)
        || ARRAY(
        SELECT d.id FROM webhook_deliveries d
         WHERE d.received_at < statement_timestamp() - p_others AND d.signed AND d.verdict NOT IN ('duplicate', 'stale')
           AND (d.verdict NOT IN ('mismatch', 'rejected') OR d.handled_at IS NOT NULL)
         ORDER BY d.received_at, d.id LIMIT p_chunk));
    GET DIAGNOSTICS v_count = ROW_COUNT;
    RETURN v_count;
END
$$;
