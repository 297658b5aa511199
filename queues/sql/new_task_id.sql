-- A time-ordered uuid (RFC 9562 version 7: 48 bits of milliseconds, 12 bits of their fraction, the
-- rest random), so that keys made later sort later and land on the right edge of the index.
-- PostgreSQL has uuidv7() only from 18 on; this gives the same shape on every version. In PL/pgSQL,
-- which keeps its plan: a function in SQL is planned anew by every statement.
CREATE OR REPLACE FUNCTION new_task_id() RETURNS uuid
LANGUAGE plpgsql VOLATILE PARALLEL SAFE AS $$
DECLARE
    v_us constant bigint := (extract(epoch FROM clock_timestamp()) * 1000000)::bigint;
    v_random constant bytea := uuid_send(gen_random_uuid());
BEGIN
    RETURN encode(
        overlay(v_random PLACING substring(int8send((v_us / 1000) << 16 | 28672 | (v_us % 1000) * 4096 / 1000) FROM 1 FOR 8)
                FROM 1 FOR 8),
        'hex')::uuid;
END
$$;
