MODEL (
  name marts.customer_history,
  kind SCD_TYPE_2_BY_TIME (
    unique_key customer_id,
    updated_at_name updated_at
  ),
  cron '@daily',
  owner 'crm@shop.example',
  tags (customers, pii, 'dagster:group_name:customers'),
  description 'Where each customer lived, and from when to when (slowly changing dimension, type 2).',
  column_descriptions (
    email = 'Personal data',
    valid_from = 'Since when this row holds, UTC',
    valid_to = 'Until when; empty for the row that holds now'
  ),
  audits (
    not_null(columns := (customer_id, city)),
    match_like_pattern_list(column := email, patterns := ('%_@_%._%'), blocking := FALSE)
  )
);

SELECT
  customer_id::INT,
  name::TEXT,
  email::TEXT,
  city::TEXT,
  updated_at::TIMESTAMP
FROM raw.customers
