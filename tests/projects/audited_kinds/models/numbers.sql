MODEL (name kinds.numbers, kind FULL, audits (not_null(columns := (number))));

SELECT word, CAST(number AS INT) AS number FROM raw.words
