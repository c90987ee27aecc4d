MODEL (
  name mart.postgres_flavour, dialect postgres, kind FULL,
  audits (forall(criteria := ("id" = ANY(ARRAY[1, 2]), payload ->> 'a' IS NULL, created::date <= current_date, name ~ '^x')))
);
SELECT 1::INT AS id, '{}'::TEXT AS payload, now()::TIMESTAMP AS created, 'x'::VARCHAR AS name
