MODEL (
  name marts.heavy,
  kind FULL
);

/* As slow as the test wants it: nothing here can be answered without counting. */
SELECT SUM(HASH(a.made + b.made) % 7) AS answer
FROM (SELECT UNNEST(GENERATE_SERIES(1, (SELECT MAX(rows_to_make) FROM raw.knobs))) AS made) AS a
CROSS JOIN (SELECT UNNEST(GENERATE_SERIES(1, (SELECT MAX(rows_to_make) FROM raw.knobs))) AS made) AS b
