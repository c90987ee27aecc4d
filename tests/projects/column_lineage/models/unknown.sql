MODEL (name nasty.unknown_upstream, kind VIEW);
SELECT u.a, b AS renamed, c.name FROM raw.undeclared AS u JOIN raw.customers AS c ON c.customer_id = u.a
