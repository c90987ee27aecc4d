MODEL (
  name sales.days,
  kind INCREMENTAL_BY_TIME_RANGE (time_column day)
);

SELECT t.day::DATE AS day, PG_ADVISORY_XACT_LOCK_SHARED(42)::TEXT AS passed
FROM GENERATE_SERIES(@start_date::DATE, @end_date::DATE, INTERVAL '1 day') AS t(day)
