MODEL (
  name marts.after,
  kind FULL
);

SELECT a.id FROM marts.gate_a AS a JOIN marts.gate_b AS b ON a.id = b.id
