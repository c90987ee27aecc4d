MODEL (
  name audited.daily,
  kind FULL,
  audits (number_of_rows(threshold := 0), never_asked)
);

SELECT day, SUM(amount) AS amount, COUNT(*) AS orders FROM audited.orders GROUP BY day
