MODEL (
  name marts.customer_activity,
  kind INCREMENTAL_BY_UNIQUE_KEY (
    unique_key customer_id
  ),
  cron '@hourly',
  grain customer_id,
  owner 'web@shop.example',
  tags (customers, pii, 'dagster:group_name:customers'),
  description 'When each customer was last seen. A customer who comes back replaces their row.',
  column_descriptions (
    last_event_id = 'The latest thing that they did',
    last_seen_at = 'UTC'
  ),
  audits (
    unique_values(columns := (customer_id)),
    not_in_future(column := last_seen_at, tolerance := INTERVAL '5 minutes')
  )
);

SELECT
  customer_id::INT,
  MAX(event_id)::BIGINT AS last_event_id,
  MAX(occurred_at)::TIMESTAMP AS last_seen_at
FROM staging.events
WHERE
  occurred_at BETWEEN @start_ts AND @end_ts
GROUP BY
  customer_id
