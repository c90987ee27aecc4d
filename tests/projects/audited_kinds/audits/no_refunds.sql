AUDIT (
  name no_refunds,
  standalone true,
  dialect duckdb
);

SELECT e.id FROM kinds.embedded AS e WHERE e.amount < 0
