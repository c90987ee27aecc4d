MODEL (name audited.elsewhere, kind FULL, gateway side, audits (not_null(columns := (id))));

SELECT 1 AS id, @execution_ds AS ran_on
