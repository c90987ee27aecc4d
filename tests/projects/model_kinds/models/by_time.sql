MODEL (
  name marts.by_time,
  kind INCREMENTAL_BY_TIME_RANGE (
    time_column ordered_at,
    auto_restatement_cron '@weekly',
    auto_restatement_intervals 4
  ),
  audits (not_null(columns := (id)))
);

SELECT id, customer, amount, ordered_at
FROM staging.embedded
WHERE ordered_at BETWEEN @start_date AND @end_date
