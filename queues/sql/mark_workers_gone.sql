-- Declares workers gone that have beaten and then fell silent for p_silence, and forgets callers
-- without heartbeat (and gone workers) that held nothing for a day. Gives the ids declared gone.
-- A server that has just started declares nobody gone: the silence was its own.
CREATE OR REPLACE FUNCTION mark_workers_gone(p_silence interval DEFAULT '30 seconds') RETURNS SETOF text
LANGUAGE plpgsql AS $$
BEGIN
    RETURN QUERY
    UPDATE workers w SET status = 'gone', idle_since = NULL
     WHERE w.id = ANY (ARRAY(SELECT s.id FROM workers s
                              WHERE s.status <> 'gone' AND s.heartbeat_at < clock_timestamp() - p_silence
                                AND pg_postmaster_start_time() < clock_timestamp() - p_silence
                              ORDER BY s.id FOR UPDATE SKIP LOCKED))
    RETURNING w.id;
    DELETE FROM workers w
     WHERE w.id = ANY (ARRAY(SELECT s.id FROM workers s
                              WHERE (s.kind = 'ephemeral' OR s.status = 'gone')
                                AND s.last_seen_at < clock_timestamp() - interval '1 day'
                                AND NOT EXISTS (SELECT FROM tasks t WHERE t.worker_id = s.id AND t.status = 'processing')
                              ORDER BY s.id FOR UPDATE SKIP LOCKED));
END
$$;
