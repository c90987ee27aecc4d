MODEL (name kinds.embedded, kind EMBEDDED);

SELECT id, customer, amount, day, changed_at FROM raw.orders
