MODEL (
  name marts.revenue,
  kind FULL,
  cron '@daily',
  audits (not_null(columns := (day)))
);

SELECT ordered_on::DATE AS day, SUM(amount)::BIGINT AS revenue FROM raw.orders GROUP BY day
