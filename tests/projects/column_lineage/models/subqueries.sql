MODEL (name nasty.subqueries, kind FULL);
SELECT
  d.customer_id,
  (SELECT MAX(o.amount) FROM raw.orders AS o WHERE o.customer_id = d.customer_id) AS dearest,
  EXISTS(SELECT 1 FROM raw.orders AS o WHERE o.customer_id = d.customer_id) AS buys,
  d.customer_id IN (SELECT customer_id FROM raw.orders) AS bought,
  d.label
FROM (SELECT c.customer_id, c.name || '!' AS label FROM (SELECT * FROM raw.customers) AS c) AS d
