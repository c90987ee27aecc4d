MODEL (
  name marts.shown,
  kind VIEW
);

SELECT customer, amount
FROM marts.whole
