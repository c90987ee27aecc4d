AUDIT (
  name revenue_adds_up,
  standalone true,
  cron '@daily',
  owner 'finance@shop.example',
  description 'The daily revenue is what the order lines of these days come to.'
);

WITH by_line AS (
  SELECT
    CAST(l.occurred_at AS DATE) AS day,
    SUM(l.quantity * p.price) AS revenue
  FROM staging.order_lines AS l
  JOIN staging.products AS p
    ON p.product_id = l.product_id
  GROUP BY
    CAST(l.occurred_at AS DATE)
), by_day AS (
  SELECT
    day,
    SUM(revenue) AS revenue
  FROM marts.daily_revenue
  GROUP BY
    day
)
SELECT
  by_day.day,
  by_day.revenue,
  by_line.revenue AS revenue_of_lines
FROM by_day
LEFT JOIN by_line
  ON by_line.day = by_day.day
WHERE
  by_line.revenue IS NULL OR ABS(by_day.revenue - by_line.revenue) > 0.005
