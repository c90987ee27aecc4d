AUDIT (
  name daily_adds_up,
  standalone true,
  dialect duckdb,
  owner 'data@example.com'
);

SELECT d.day FROM audited.daily AS d WHERE d.orders <> 3
