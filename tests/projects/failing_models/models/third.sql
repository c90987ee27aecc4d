MODEL (
  name marts.third,
  kind FULL
);

/* SQLMesh gets to it after two others; then it is as slow as the test wants it. */
SELECT SUM(HASH(a.made + b.made) % 7) AS answer
FROM (SELECT UNNEST(GENERATE_SERIES(1, (SELECT MAX(rows_to_make) FROM raw.knobs))) AS made) AS a
CROSS JOIN (SELECT UNNEST(GENERATE_SERIES(1, (SELECT MAX(rows_to_make) FROM raw.knobs))) AS made) AS b
CROSS JOIN (SELECT MAX(id) AS id FROM marts.second) AS c
