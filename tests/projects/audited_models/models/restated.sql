MODEL (
  name audited.restated,
  kind INCREMENTAL_BY_TIME_RANGE (
    time_column day,
    auto_restatement_cron '@daily',
    auto_restatement_intervals 2
  )
);

SELECT id, day FROM raw.orders WHERE day BETWEEN @start_date AND @end_date
