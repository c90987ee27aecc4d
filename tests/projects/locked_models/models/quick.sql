MODEL (
  name marts.quick,
  kind FULL
);

SELECT id::INT AS id FROM GENERATE_SERIES(1, 5) AS t(id)
