MODEL (
  name staging.order_lines,
  kind INCREMENTAL_BY_TIME_RANGE (
    time_column occurred_at,
    batch_size 24
  ),
  cron '@hourly',
  grain order_id,
  owner 'sales@shop.example',
  tags (sales, 'dagster:group_name:sales'),
  description 'One row per thing ordered. Hourly, a day at a time, and only hours that have arrived whole.',
  column_descriptions (
    order_id = 'The event that placed the order',
    quantity = 'Pieces, 1 to 12',
    occurred_at = 'When it was ordered, UTC'
  ),
  signals (
    raw_events_arrived()
  ),
  audits (
    not_null(columns := (order_id, customer_id, product_id)),
    accepted_range(column := quantity, min_v := 1, max_v := 12),
    -- The same audit once more: what is unusual is worth a warning, not a stop.
    accepted_range(column := quantity, max_v := 8, blocking := FALSE),
    not_in_future(column := occurred_at)
  )
);

SELECT
  event_id AS order_id,
  customer_id,
  product_id,
  quantity,
  occurred_at
FROM staging.events
WHERE
  stage = 'order' AND occurred_at BETWEEN @start_ts AND @end_ts
