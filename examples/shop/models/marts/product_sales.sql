MODEL (
  name marts.product_sales,
  kind FULL,
  cron '@hourly',
  grain product_id,
  owner 'catalogue@shop.example',
  tags (sales, 'dagster:group_name:catalogue'),
  description 'What each product has sold since the shop keeps books.',
  column_descriptions (
    units = 'Pieces sold',
    share = 'Of all pieces sold, 0 to 1'
  ),
  audits (
    not_null(columns := (product_id, name)),
    accepted_range(column := share, min_v := 0, max_v := 1),
    every_product_sells(least_units := 1),
    number_of_rows(threshold := 5)
  )
);

WITH sold AS (
  SELECT
    product_id,
    SUM(quantity) AS units
  FROM staging.order_lines
  GROUP BY
    product_id
)
SELECT
  p.product_id::INT,
  p.name::TEXT,
  p.category::TEXT,
  COALESCE(s.units, 0)::BIGINT AS units,
  (COALESCE(s.units, 0)::DOUBLE / NULLIF(SUM(s.units) OVER (), 0))::DOUBLE AS share
FROM staging.products AS p
LEFT JOIN sold AS s
  ON s.product_id = p.product_id
