MODEL (
  name late.early,
  kind FULL,
  audits (not_null(columns := (id)), number_of_rows(threshold := 0))
);

SELECT 1 AS id, @execution_ds AS ran_on
