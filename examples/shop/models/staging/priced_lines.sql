MODEL (
  name staging.priced_lines,
  kind EMBEDDED,
  owner 'sales@shop.example',
  tags (sales, 'dagster:group_name:sales'),
  description 'Order lines with what they cost. Embedded: it is part of the queries that read it, not a table.'
);

SELECT
  l.order_id,
  l.customer_id,
  l.product_id,
  p.category,
  l.quantity,
  l.quantity * p.price AS amount,
  l.occurred_at
FROM staging.order_lines AS l
JOIN staging.products AS p
  ON p.product_id = l.product_id
