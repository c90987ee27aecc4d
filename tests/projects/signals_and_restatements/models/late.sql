MODEL (
  name signals.late,
  kind INCREMENTAL_BY_TIME_RANGE (time_column day),
  signals (arrived())
);

SELECT @start_ds::DATE AS day
