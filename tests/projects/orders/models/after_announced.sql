MODEL (
  name marts.after_announced,
  kind FULL
);

SELECT COUNT(*) AS orders FROM marts.announced
