MODEL (
  name kinds.history_by_column,
  kind SCD_TYPE_2_BY_COLUMN (unique_key id, columns [customer], invalidate_hard_deletes true)
);

SELECT id, customer FROM raw.orders WHERE id IS NOT NULL
