MODEL (
  name marts.asked_twice,
  kind FULL,
  audits (
    not_null(columns := (id)),
    not_null(columns := (id), blocking := false),
    number_of_rows(threshold := 0, blocking := false),
    number_of_rows(threshold := 0)
  )
);

SELECT CASE WHEN @execution_ds < '2026-01-05' THEN 1 END AS id
