MODEL (
  name marts.totals_view,
  kind VIEW
);

SELECT * FROM marts.totals
