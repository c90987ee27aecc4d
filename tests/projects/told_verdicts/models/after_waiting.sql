MODEL (name told.after_waiting, kind FULL);

SELECT COUNT(*) AS orders FROM told.waiting
