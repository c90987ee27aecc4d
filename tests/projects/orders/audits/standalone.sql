AUDIT (
  name assert_totals_agree,
  standalone true,
  dialect duckdb
);

SELECT t.ordered_at
FROM marts.totals AS t
WHERE t.orders < 0
