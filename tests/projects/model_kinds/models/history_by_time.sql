MODEL (
  name marts.history_by_time,
  kind SCD_TYPE_2_BY_TIME (unique_key id)
);

SELECT id, customer, updated_at
FROM raw.orders
