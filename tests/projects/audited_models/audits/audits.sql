AUDIT (
  name positive,
  blocking false
);

SELECT * FROM @this_model WHERE @column <= 0 AND day BETWEEN @start_date AND @end_date;

AUDIT (
  name never_asked,
  skip true
);

SELECT 1;

AUDIT (
  name are_numbers,
  blocking false
);

SELECT * FROM @this_model WHERE CAST(number AS INT) IS NULL;
