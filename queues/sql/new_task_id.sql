-- A time-ordered uuid (RFC 9562 version 7: 48 bits of milliseconds, 12 bits of their fraction, the
-- rest random), so that keys made later sort later and land on the right edge of the index.
-- PostgreSQL has uuidv7() only from 18 on; this gives the same shape on every version.
CREATE OR REPLACE FUNCTION new_task_id() RETURNS uuid
LANGUAGE sql VOLATILE PARALLEL SAFE AS $$
SELECT encode(
    set_byte(
        overlay(
            uuid_send(gen_random_uuid())
            PLACING substring(int8send((m.us / 1000) << 16 | 28672 | (m.us % 1000) * 4096 / 1000) FROM 1 FOR 8)
            FROM 1 FOR 8),
        8, get_byte(uuid_send(gen_random_uuid()), 0) & 63 | 128),
    'hex')::uuid
FROM (SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS us) m
$$;
