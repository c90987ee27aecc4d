MODEL (name audited.third, kind FULL, audits (not_null(columns := (id)))); SELECT id FROM audited.second
