MODEL (name nasty.stars, kind VIEW);
SELECT o.*, c.* EXCLUDE (customer_id), COUNT(*) AS constant FROM raw.orders AS o JOIN raw.customers AS c ON c.customer_id = o.customer_id GROUP BY ALL
