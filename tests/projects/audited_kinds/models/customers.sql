MODEL (
  name kinds.customers,
  kind SEED (path '../seeds/customers.csv'),
  columns (customer TEXT, name TEXT),
  audits (unique_values(columns := (customer)))
);
