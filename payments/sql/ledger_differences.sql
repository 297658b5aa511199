-- What an event says otherwise than the ledger, with both values; null if they agree. An e-mail address that
-- either side does not know is no difference, nor is its case.
CREATE OR REPLACE FUNCTION ledger_differences(p_row transactions, p_provider text, p_claim jsonb) RETURNS text
LANGUAGE sql IMMUTABLE AS $$
SELECT string_agg(format('%s: recorded %s, delivered %s', d.name, d.recorded, d.delivered), '; ' ORDER BY d.place)
  FROM (VALUES (1, 'provider', p_row.provider, p_provider, p_row.provider <> p_provider),
               (2, 'amount', p_row.amount::text, p_claim ->> 'amount', p_row.amount <> (p_claim ->> 'amount')::bigint),
               (3, 'currency', p_row.currency, p_claim ->> 'currency', p_row.currency <> p_claim ->> 'currency'),
               (4, 'email', p_row.email, p_claim ->> 'email', lower(p_row.email) <> lower(p_claim ->> 'email'))
       ) d(place, name, recorded, delivered, differs)
 WHERE d.differs
$$;
