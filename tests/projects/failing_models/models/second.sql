MODEL (name marts.second, kind FULL);

SELECT id FROM marts.first
