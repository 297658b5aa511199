-- Error 0A000 unless the transaction runs at READ COMMITTED, where each statement sees all that was
-- committed before it: the verbs lock first and look afterwards.
CREATE OR REPLACE FUNCTION require_read_committed() RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'the queue needs READ COMMITTED, not %', current_setting('transaction_isolation')
            USING ERRCODE = 'feature_not_supported',
                  HINT = 'SET TRANSACTION ISOLATION LEVEL READ COMMITTED in the transaction that calls it.';
    END IF;
END
$$;
