MODEL (name kinds.total, kind FULL, audits (number_of_rows(threshold := 0)));

SELECT SUM(number) AS total FROM kinds.numbers
