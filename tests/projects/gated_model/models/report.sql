MODEL (
  name ticks.report,
  kind FULL
);

SELECT COUNT(*) AS ids FROM ticks.gated
