MODEL (
  name marts.history_by_column,
  kind SCD_TYPE_2_BY_COLUMN (unique_key id, columns [customer])
);

SELECT id, customer
FROM raw.orders
