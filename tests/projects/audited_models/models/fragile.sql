MODEL (name audited.fragile, kind FULL, audits (are_numbers));

SELECT word, number FROM raw.words
