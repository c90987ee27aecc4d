MODEL (name nasty.lateral_join, kind FULL);
SELECT c.customer_id, l.last_amount
FROM raw.customers AS c, LATERAL (SELECT MAX(o.amount) AS last_amount FROM raw.orders AS o WHERE o.customer_id = c.customer_id) AS l
