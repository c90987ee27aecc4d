MODEL (
  name mart.bigquery_flavour, dialect bigquery, kind FULL,
  audits (unique_combination_of_columns(columns := (`id`, `select`)), accepted_values(column := `select`, is_in := ["a", 'b'], blocking := false))
);
SELECT 1 AS id, 'a' AS `select`
