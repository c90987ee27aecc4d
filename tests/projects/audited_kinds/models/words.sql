MODEL (name kinds.words, kind FULL, audits (unique_values(columns := (word))));

SELECT word FROM raw.words
