MODEL (name two.source, kind FULL); SELECT 1 AS id
