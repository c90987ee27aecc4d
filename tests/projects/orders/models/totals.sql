MODEL (
  name marts.totals,
  kind FULL,
  audits (number_of_rows(threshold := 0), never_asked)
);

SELECT ordered_at, SUM(amount) AS amount, COUNT(*) AS orders
FROM staging.orders
GROUP BY ordered_at
