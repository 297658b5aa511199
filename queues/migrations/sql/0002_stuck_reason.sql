-- Why a processing task counts as stuck, or null: its worker is gone, or has been silent for p_silence
-- (even if nobody is left who would declare it gone), or the task has outlived its timeout.
-- A worker that heartbeats ends its own tasks at their timeout, so it is given p_grace more.
CREATE OR REPLACE FUNCTION stuck_reason(
    p_worker_status text, p_heartbeat_at timestamptz, p_started_at timestamptz, p_timeout interval,
    p_silence interval DEFAULT '30 seconds', p_grace interval DEFAULT '30 seconds'
) RETURNS text
LANGUAGE sql VOLATILE AS $$
SELECT CASE
    WHEN p_worker_status IS NULL THEN 'its worker is unknown'
    WHEN p_worker_status = 'gone' THEN 'its worker is gone'
    WHEN p_heartbeat_at < clock_timestamp() - p_silence
         AND pg_postmaster_start_time() < clock_timestamp() - p_silence THEN 'its worker has fallen silent'
    WHEN clock_timestamp() > p_started_at + p_timeout
         + CASE WHEN p_heartbeat_at IS NULL THEN interval '0' ELSE p_grace END THEN 'its timeout has passed'
END
$$;
