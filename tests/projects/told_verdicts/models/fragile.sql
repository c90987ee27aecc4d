MODEL (name told.fragile, kind FULL, audits (are_numbers));

SELECT word, number FROM raw.words
