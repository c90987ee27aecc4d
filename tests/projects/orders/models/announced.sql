MODEL (
  name marts.announced,
  kind INCREMENTAL_BY_TIME_RANGE (time_column ordered_at),
  signals (announced())
);

SELECT id, ordered_at
FROM raw.orders
WHERE ordered_at BETWEEN @start_date AND @end_date
