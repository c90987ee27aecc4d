AUDIT (name amounts_above, dialect duckdb, defaults (least = @least_amount));
SELECT * FROM @this_model WHERE @column < @least;

AUDIT (name never_looked_at, skip true);
SELECT * FROM @this_model;
