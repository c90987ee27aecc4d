MODEL (name audited.after_waiting, kind FULL);

SELECT COUNT(*) AS orders FROM audited.waiting
