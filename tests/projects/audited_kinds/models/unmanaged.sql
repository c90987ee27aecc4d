MODEL (name kinds.unmanaged, kind INCREMENTAL_UNMANAGED, audits (positive(column := amount, blocking := true)));

SELECT id, amount, day FROM raw.orders WHERE day BETWEEN @start_date AND @end_date AND amount > 0
