MODEL (
  name kinds.whole,
  kind FULL,
  audits (number_of_rows(threshold := 0), positive(column := amount), not_null(columns := (name), blocking := false))
);

SELECT k.customer, c.name, k.amount FROM kinds.by_key AS k LEFT JOIN kinds.customers AS c ON c.customer = k.customer
