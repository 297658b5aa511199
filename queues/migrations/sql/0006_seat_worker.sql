-- Answers the status of p_worker and registers a caller that nobody has registered, as ephemeral:
-- a claim by an unknown worker is never an error. Error 55000 for a worker that was declared gone:
-- its tasks are with others by now, so it must start again under a new id.
CREATE OR REPLACE FUNCTION seat_worker(p_worker text) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
    v workers;
BEGIN
    SELECT * INTO v FROM workers w WHERE w.id = p_worker;
    IF NOT FOUND THEN
        INSERT INTO workers (id) VALUES (p_worker) ON CONFLICT (id) DO NOTHING;
        RETURN 'alive';
    END IF;
    IF v.status = 'gone' AND v.kind = 'process' THEN
        RAISE EXCEPTION 'worker % was declared gone', p_worker
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  HINT = 'Register again under a new id; its tasks were given to others.';
    END IF;
    IF v.kind = 'ephemeral' AND (v.status = 'gone' OR v.last_seen_at < clock_timestamp() - interval '10 seconds') THEN
        UPDATE workers w SET status = 'alive', last_seen_at = clock_timestamp() WHERE w.id = p_worker;
        IF NOT FOUND THEN
            -- Forgotten as idle in this very moment.
            INSERT INTO workers (id) VALUES (p_worker) ON CONFLICT (id) DO NOTHING;
        END IF;
        RETURN 'alive';
    END IF;
    RETURN v.status;
END
$$;
