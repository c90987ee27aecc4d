MODEL (
  name kinds.by_key,
  kind INCREMENTAL_BY_UNIQUE_KEY (unique_key customer),
  audits (unique_values(columns := (customer)))
);

SELECT customer, SUM(amount)::INT AS amount FROM kinds.embedded GROUP BY customer
