MODEL (name audited.first, kind FULL, audits (not_null(columns := (id)))); SELECT 1 AS id
