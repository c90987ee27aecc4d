MODEL (
  name marts.live_funnel,
  kind FULL,
  cron '*/5 * * * *',
  grain stage,
  owner 'web@shop.example',
  tags (web, 'dagster:group_name:web'),
  description 'How far customers got in the last 24 hours. Every five minutes.',
  column_descriptions (
    stage = 'view, basket or order',
    events = 'In the last 24 hours'
  ),
  audits (
    not_null(columns := (stage)),
    unique_values(columns := (stage))
  )
);

SELECT
  stage::TEXT,
  COUNT(*)::BIGINT AS events,
  COUNT(DISTINCT customer_id)::BIGINT AS customers
FROM staging.events
WHERE
  occurred_at > CAST(@execution_ts AS TIMESTAMP) - INTERVAL '24 hours'
GROUP BY
  stage
