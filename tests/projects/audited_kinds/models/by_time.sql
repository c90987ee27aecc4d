MODEL (
  name kinds.by_time,
  kind INCREMENTAL_BY_TIME_RANGE (time_column day, batch_size 1),
  audits (not_null(columns := (id)), positive(column := amount))
);

SELECT id, customer, amount, day FROM kinds.embedded WHERE day BETWEEN @start_date AND @end_date
