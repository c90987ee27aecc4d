MODEL (
  name signals.after_restated,
  kind INCREMENTAL_BY_TIME_RANGE (time_column day)
);

SELECT day FROM signals.restated WHERE day BETWEEN @start_date AND @end_date
