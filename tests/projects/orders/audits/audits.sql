AUDIT (
  name assert_positive,
  blocking false
);

SELECT * FROM @this_model WHERE @column <= 0 AND ordered_at BETWEEN @start_date AND @end_date;

AUDIT (
  name never_asked,
  skip true
);

SELECT 1;
