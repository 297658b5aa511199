-- What a delivery says otherwise than the first one of its event id; null where it says the same. The amount of a
-- callback is what was announced, not what the provider said.
CREATE OR REPLACE FUNCTION event_contradiction(p_first webhook_deliveries, p_event_type text, p_claim jsonb) RETURNS text
LANGUAGE sql IMMUTABLE AS $$
SELECT format('The event id %s was used before. ', p_first.event_id)
       || string_agg(format('%s: recorded %s, delivered %s', d.name, coalesce(d.recorded, 'none'), coalesce(d.delivered, 'none')),
                     '; ' ORDER BY d.place)
  FROM (SELECT 0 AS place, 'event' AS name, p_first.event_type AS recorded, p_event_type AS delivered
        UNION ALL
        SELECT k.place, replace(k.name, '_id', ''), p_first.claim ->> k.name, p_claim ->> k.name
          FROM unnest(ARRAY['order_id', 'payment_id', 'status', 'amount', 'currency', 'refunded', 'email']) WITH ORDINALITY k(name, place)
       ) d
 WHERE lower(d.recorded) IS DISTINCT FROM lower(d.delivered)
   AND (d.name <> 'email' OR d.recorded IS NOT NULL AND d.delivered IS NOT NULL)
   AND (p_first.source <> 'callback' OR d.place <= 2)
HAVING count(*) > 0
$$;
