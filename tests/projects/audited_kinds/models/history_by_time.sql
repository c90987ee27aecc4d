MODEL (
  name kinds.history_by_time,
  kind SCD_TYPE_2_BY_TIME (unique_key id, updated_at_name changed_at, invalidate_hard_deletes true)
);

SELECT id, customer, changed_at FROM raw.orders WHERE id IS NOT NULL
