MODEL (
  name signals.restated,
  kind INCREMENTAL_BY_TIME_RANGE (
    time_column day,
    auto_restatement_cron '@hourly',
    auto_restatement_intervals 2
  )
);

SELECT @start_ds::DATE AS day
