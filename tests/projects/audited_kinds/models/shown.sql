MODEL (name kinds.shown, kind VIEW);

SELECT customer, name, amount FROM kinds.whole
