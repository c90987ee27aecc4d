MODEL (name kinds.after_by_time, kind VIEW, audits (number_of_rows(threshold := 0)));

SELECT customer, SUM(amount) AS amount FROM kinds.by_time GROUP BY customer
