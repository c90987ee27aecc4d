MODEL (name kinds.by_partition, kind INCREMENTAL_BY_PARTITION, partitioned_by (customer));

SELECT id, customer, amount FROM raw.orders WHERE day BETWEEN @start_date AND @end_date
