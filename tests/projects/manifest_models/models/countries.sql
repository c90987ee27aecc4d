MODEL (
  name staging.countries,
  kind SEED (path '../seeds/countries.csv'),
  columns (code TEXT, name TEXT),
  grain code
);
