MODEL (
  name mirror.second,
  kind INCREMENTAL_BY_TIME_RANGE (time_column day),
  audits (not_null(columns := (day)))
);

SELECT id, @start_date::DATE AS day FROM mirror.first
