-- Enqueues one http_request to the endpoint `bubble_sync` if queue `sync` has due tasks: never tried ones,
-- or with p_tried those tried before. One request of a name at a time: while it is on its way there is
-- no second. The secret is given by its name; the worker that sends the request knows its value.
-- NOTICE when there is nothing to do, WARNING when the endpoint's URL or secret is not configured.
CREATE OR REPLACE FUNCTION request_sync(p_name text, p_tried boolean, p_body jsonb) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_now timestamptz := clock_timestamp();
    v_count integer;
    v_url text;
    v_secret text;
    v record;
BEGIN
    SELECT count(*) INTO v_count
      FROM (SELECT FROM tasks t
             WHERE t.queue = 'sync' AND (t.attempts > 0) = p_tried AND t.run_at <= v_now
               AND t.status IN ('pending', 'scheduled') LIMIT 1000) due;
    IF v_count = 0 THEN
        RAISE NOTICE '[%] no items are due in queue sync', p_name;
        RETURN;
    END IF;
    SELECT e.url, e.secret INTO v_url, v_secret FROM endpoints e WHERE e.name = 'bubble_sync';
    IF coalesce(v_url, '') = '' OR coalesce(v_secret, '') = '' THEN
        RAISE WARNING '[%] % items are due, but the endpoint bubble_sync has no %', p_name, v_count,
            CASE WHEN coalesce(v_url, '') = '' THEN 'URL' ELSE 'secret' END
            USING HINT = 'Set BUBBLE_SYNC_URL and BUBBLE_SYNC_SECRET (a secret''s name) and run manage.py migrate, or edit it in the admin under Endpoints.';
        RETURN;
    END IF;
    SELECT * INTO v FROM enqueue_task(
        'http_request', jsonb_build_object('url', v_url, 'json', p_body, 'secret', v_secret, 'timeout', 30),
        p_queue => 'http', p_dedupe_key => p_name, p_timeout => '2 minutes');
    RAISE NOTICE '[%] % items are due; request % %', p_name, v_count, v.id,
        CASE WHEN v.created THEN 'enqueued' ELSE 'is on its way already' END;
END
$$;
