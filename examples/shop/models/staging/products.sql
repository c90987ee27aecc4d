MODEL (
  name staging.products,
  kind SEED (
    path '../../seeds/products.csv'
  ),
  columns (
    product_id INT,
    name TEXT,
    category TEXT,
    price DECIMAL(10, 2)
  ),
  column_descriptions (
    product_id = 'The number on the price tag',
    price = 'In euros, VAT included'
  ),
  grain product_id,
  owner 'catalogue@shop.example',
  tags (catalogue, 'dagster:group_name:catalogue'),
  description 'What the shop sells.',
  audits (
    unique_values(columns := (product_id)),
    not_null(columns := (name, category, price)),
    accepted_range(column := price, min_v := 0, inclusive := FALSE)
  )
)
