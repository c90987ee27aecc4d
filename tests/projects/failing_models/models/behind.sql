MODEL (
  name marts.behind,
  kind FULL
);

SELECT id FROM marts.in_steps
