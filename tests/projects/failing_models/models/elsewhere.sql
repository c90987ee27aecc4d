MODEL (
  name marts.elsewhere,
  kind CUSTOM (materialization 'elsewhere')
);

SELECT 1 AS id
