AUDIT (
  name no_debts,
  standalone true,
  dialect duckdb
);

SELECT w.customer FROM kinds.whole AS w WHERE w.amount < 3
