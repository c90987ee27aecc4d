MODEL (name nasty.recursive_cte, kind FULL);
WITH RECURSIVE chain AS (
  SELECT customer_id, name, 1 AS depth FROM raw.customers
  UNION ALL
  SELECT customer_id + 1, name, depth + 1 FROM chain WHERE depth < 3
)
SELECT customer_id, name, depth FROM chain
