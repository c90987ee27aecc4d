MODEL (name audited.by_hand, kind CUSTOM (materialization 'by_hand'));

SELECT word FROM raw.words
