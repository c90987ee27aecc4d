MODEL (
  name shop.sales,
  kind INCREMENTAL_BY_TIME_RANGE (time_column day)
);

SELECT @start_ds::DATE AS day, @region() AS region
