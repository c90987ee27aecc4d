MODEL (
  name staging.embedded,
  kind EMBEDDED
);

SELECT id, customer, amount, ordered_at, updated_at
FROM raw.orders
WHERE amount > 0
