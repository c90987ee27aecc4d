MODEL (
  name ticks.days,
  kind INCREMENTAL_BY_TIME_RANGE (time_column day),
  audits (not_null(columns := (day)))
);

SELECT day::DATE AS day
FROM GENERATE_SERIES(@start_date::TIMESTAMP, @end_date::TIMESTAMP, INTERVAL 1 DAY) AS t(day)
