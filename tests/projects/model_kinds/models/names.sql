MODEL (
  name seeds.names,
  kind SEED (path '../seeds/names.csv'),
  columns (customer TEXT, full_name TEXT),
  audits (unique_values(columns := (customer)))
);
