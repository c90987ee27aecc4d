/* Every event, once. */
MODEL (
  name staging.events,
  kind INCREMENTAL_BY_TIME_RANGE (time_column happened_at, batch_size 12, lookback 2),
  cron '@hourly',
  end '2024-01-06',
  owner data,
  tags (finance, 'dagster:group_name:money'),
  description 'Every event, once.',
  column_descriptions (id = 'the event''s number'),
  partitioned_by (DATE_TRUNC('DAY', happened_at)),
  grains (id, (id, happened_at)),
  signals (events_arrived(after := 3)),
  audits (
    not_null(columns := (id, amount)),
    not_null(columns := (happened_at), blocking := false),
    not_null(columns := (happened_at)), -- the same use again, but for blocking
    amounts_above(column := amount),
    amounts_above(column := amount, least := 0 /* no debts */, blocking := false),
    accepted_values(column := id, is_in := (1, 2, 3)),
    forall(criteria := (amount > 0, 'a''b' <> 'c'::TEXT, "id" IS NOT NULL, amount::INT = 1 OR CAST(amount AS DOUBLE) <> 0.5::TEXT::DOUBLE)),
    never_looked_at
  )
);
SELECT id::INT, amount::DOUBLE, @taxed(amount)::DOUBLE AS taxed_amount, happened_at::TIMESTAMP
FROM raw.events
WHERE happened_at BETWEEN @start_ts AND @end_ts AND amount >= @least_amount
