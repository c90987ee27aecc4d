AUDIT (
  name positive,
  blocking false
);

SELECT * FROM @this_model WHERE @column <= 0;
