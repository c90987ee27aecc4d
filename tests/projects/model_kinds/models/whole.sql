MODEL (
  name marts.whole,
  kind FULL,
  audits (number_of_rows(threshold := 0))
);

SELECT o.customer, n.full_name, o.amount
FROM marts.by_key AS o
LEFT JOIN seeds.names AS n
  ON n.customer = o.customer
