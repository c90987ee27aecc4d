MODEL (name nasty.unions, kind FULL);
SELECT customer_id AS id, name AS what FROM raw.customers
UNION ALL
(SELECT order_id, amount::TEXT FROM raw.orders UNION SELECT customer_id, country FROM raw.customers)
EXCEPT
SELECT 1, 'x'
