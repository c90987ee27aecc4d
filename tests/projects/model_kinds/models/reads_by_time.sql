MODEL (
  name marts.reads_by_time,
  kind INCREMENTAL_BY_TIME_RANGE (time_column ordered_at)
);

SELECT COUNT(*)::INT AS orders, ordered_at
FROM marts.by_time
WHERE ordered_at BETWEEN @start_date AND @end_date
GROUP BY ordered_at
