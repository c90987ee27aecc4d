MODEL (name nasty.windows, kind FULL);
SELECT order_id, SUM(amount) OVER w AS running, LAG(ordered_at) OVER (PARTITION BY customer_id ORDER BY ordered_at) AS before, 1 AS one, amount AS "Amount In €"
FROM raw.orders WINDOW w AS (PARTITION BY customer_id ORDER BY ordered_at) QUALIFY ROW_NUMBER() OVER w < 10
