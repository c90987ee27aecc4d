MODEL (
  name marts.unmanaged,
  kind INCREMENTAL_UNMANAGED
);

SELECT id, ordered_at
FROM raw.orders
WHERE ordered_at BETWEEN @start_date AND @end_date
