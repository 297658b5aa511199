-- One entry of a task's error history: which attempt, by whom, when, what. Long texts keep their
-- beginning (message) and their end (traceback), where the cause stands.
CREATE OR REPLACE FUNCTION attempt_record(p_attempt integer, p_worker text, p_started timestamptz, p_error jsonb)
RETURNS jsonb
LANGUAGE sql VOLATILE AS $$
SELECT jsonb_strip_nulls(jsonb_build_object(
    'attempt', p_attempt, 'worker', p_worker, 'started_at', p_started, 'at', clock_timestamp(),
    'class', left(p_error ->> 'class', 200), 'module', left(p_error ->> 'module', 200), 'message', left(p_error ->> 'message', 4000),
    'traceback', right(p_error ->> 'traceback', 16000)))
$$;
