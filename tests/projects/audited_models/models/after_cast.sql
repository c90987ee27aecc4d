MODEL (name audited.after_cast, kind FULL, audits (number_of_rows(threshold := 0)));

SELECT SUM(number) AS total FROM audited.casted
