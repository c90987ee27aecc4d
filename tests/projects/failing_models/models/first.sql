MODEL (name marts.first, kind FULL);

SELECT 1 AS id
