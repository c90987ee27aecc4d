MODEL (name told.leaf, kind FULL, audits (forall(criteria := (amount < 1000))));

SELECT id, amount FROM told.orders
