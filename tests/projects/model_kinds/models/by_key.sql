MODEL (
  name marts.by_key,
  kind INCREMENTAL_BY_UNIQUE_KEY (unique_key customer)
);

SELECT customer, SUM(amount)::INT AS amount
FROM raw.orders
GROUP BY customer
