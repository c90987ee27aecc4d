MODEL (
  name mirror.names,
  kind SEED (path '../seeds/names.csv')
);
