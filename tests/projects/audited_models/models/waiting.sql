MODEL (
  name audited.waiting,
  kind INCREMENTAL_BY_TIME_RANGE (time_column day),
  signals (announced())
);

SELECT id, day FROM raw.orders WHERE day BETWEEN @start_date AND @end_date
