-- Where an event says otherwise than what was announced for an order or, unannounced, what its money brought, each with
-- both values; null: nowhere. What only an attempt said counts for nothing. An e-mail address that either side does not
-- know is no difference, nor is its case.
CREATE OR REPLACE FUNCTION ledger_differences(p_row transactions, p_provider text, p_claim jsonb) RETURNS text
LANGUAGE sql IMMUTABLE AS $$
SELECT string_agg(format('%s: recorded %s, delivered %s', d.name, d.recorded, d.delivered), '; ' ORDER BY d.place)
  FROM (SELECT coalesce(p_row.expected_email, CASE WHEN money_has_come(p_row.status) THEN p_row.email END)) r(email),
       LATERAL (VALUES
           (1, 'provider', p_row.provider, p_provider, p_row.provider <> p_provider),
           (2, 'amount', p_row.amount::text, p_claim ->> 'amount', p_row.amount <> (p_claim ->> 'amount')::bigint),
           (3, 'currency', p_row.currency, p_claim ->> 'currency', p_row.currency <> p_claim ->> 'currency'),
           (4, 'email', r.email, p_claim ->> 'email', lower(btrim(r.email)) <> lower(btrim(p_claim ->> 'email')))
       ) d(place, name, recorded, delivered, differs)
 WHERE d.differs AND (p_row.expected_at IS NOT NULL OR money_has_come(p_row.status))
$$;
