MODEL (
  name held_back.after_late,
  kind FULL
);

SELECT COUNT(*) AS days FROM held_back.late
