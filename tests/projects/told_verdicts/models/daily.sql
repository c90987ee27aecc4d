MODEL (
  name told.daily,
  kind FULL,
  audits (number_of_rows(threshold := 0), never_asked)
);

SELECT day, SUM(amount) AS amount, COUNT(*) AS orders FROM told.orders GROUP BY day
