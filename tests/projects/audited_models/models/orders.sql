MODEL (
  name audited.orders,
  kind INCREMENTAL_BY_TIME_RANGE (time_column day, batch_size 1),
  audits (
    not_null(columns := (id)),
    positive(column := amount),
    positive(column := id, blocking := true)
  )
);

SELECT id, day, amount FROM raw.orders WHERE day BETWEEN @start_date AND @end_date
