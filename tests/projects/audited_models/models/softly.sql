MODEL (name audited.softly, kind FULL, audits (unique_values(columns := (word), blocking := false)));

SELECT word FROM raw.words
