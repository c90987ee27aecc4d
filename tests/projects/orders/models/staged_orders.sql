MODEL (
  name staging.orders,
  kind INCREMENTAL_BY_TIME_RANGE (time_column ordered_at, batch_size 1),
  owner 'orders@example.com',
  audits (
    not_null(columns := (id)),
    assert_positive(column := amount),
    assert_positive(column := id, blocking := true)
  )
);

SELECT id, ordered_at, CAST(amount AS INT) AS amount
FROM raw.orders
WHERE ordered_at BETWEEN @start_date AND @end_date
