MODEL (
  name signals.after_late,
  kind FULL
);

SELECT COUNT(*) AS days FROM signals.late
