MODEL (name nasty.self_reference, kind INCREMENTAL_BY_TIME_RANGE (time_column ordered_at), columns (order_id INT, running DOUBLE, ordered_at TIMESTAMP));
SELECT o.order_id::INT, (o.amount + COALESCE((SELECT MAX(running) FROM nasty.self_reference), 0))::DOUBLE AS running, o.ordered_at::TIMESTAMP
FROM raw.orders AS o WHERE o.ordered_at BETWEEN @start_ts AND @end_ts
