MODEL (
  name late.middle,
  kind INCREMENTAL_BY_TIME_RANGE (time_column day),
  audits (unique_values(columns := (day), blocking := false))
);

SELECT early.id, @start_date::DATE AS day
FROM late.early AS early
