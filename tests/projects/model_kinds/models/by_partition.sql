MODEL (
  name marts.by_partition,
  kind INCREMENTAL_BY_PARTITION,
  partitioned_by (customer)
);

SELECT id, customer
FROM raw.orders
WHERE ordered_at BETWEEN @start_date AND @end_date
