MODEL (name audited.leaf, kind FULL, audits (forall(criteria := (amount < 1000))));

SELECT id, amount FROM audited.orders
