MODEL (name told.third, kind FULL, audits (not_null(columns := (id)))); SELECT id FROM told.second
