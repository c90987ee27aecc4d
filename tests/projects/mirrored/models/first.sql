MODEL (
  name mirror.first,
  kind FULL,
  audits (not_null(columns := (id)))
);

SELECT id, @execution_ds AS ran_on FROM mirror.names
