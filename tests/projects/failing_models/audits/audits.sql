AUDIT (
  name no_zero,
  blocking false
);

SELECT * FROM @this_model WHERE CAST(written AS INT) = 0
