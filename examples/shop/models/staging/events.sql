MODEL (
  name staging.events,
  kind VIEW,
  cron '@daily',
  owner 'web@shop.example',
  tags (web, 'dagster:group_name:web'),
  description 'The raw events, with the types that the other models rely on.',
  column_descriptions (
    stage = 'How far the customer went: view, basket or order',
    occurred_at = 'UTC'
  ),
  audits (
    accepted_values(column := stage, is_in := ('view', 'basket', 'order')),
    unique_values(columns := (event_id), blocking := FALSE)
  )
);

SELECT
  event_id::BIGINT,
  stage::TEXT,
  customer_id::INT,
  product_id::INT,
  quantity::INT,
  occurred_at::TIMESTAMP
FROM raw.events
