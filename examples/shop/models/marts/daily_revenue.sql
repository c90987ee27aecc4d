MODEL (
  name marts.daily_revenue,
  kind INCREMENTAL_BY_TIME_RANGE (
    time_column day
  ),
  cron '@daily',
  grains (day, category),
  owner 'finance@shop.example',
  tags (finance, sales, 'dagster:group_name:finance'),
  description 'Revenue per day and category.',
  column_descriptions (
    day = 'Calendar day, UTC',
    orders = 'Order lines on that day',
    revenue = 'In euros, VAT included'
  ),
  audits (
    not_null(columns := (day, category, revenue)),
    unique_combination_of_columns(columns := (day, category)),
    forall(criteria := (revenue > 0, orders > 0))
  )
);

SELECT
  occurred_at::DATE AS day,
  category::TEXT AS category,
  COUNT(*)::BIGINT AS orders,
  SUM(amount)::DECIMAL(12, 2) AS revenue
FROM staging.priced_lines
WHERE
  occurred_at BETWEEN @start_ts AND @end_ts
GROUP BY
  occurred_at::DATE,
  category
