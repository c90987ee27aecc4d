AUDIT (
  name not_in_future,
  defaults (tolerance = INTERVAL '1 minute')
);

SELECT *
FROM @this_model
WHERE
  @column > CAST(@execution_ts AS TIMESTAMP) + @tolerance;

AUDIT (
  name every_product_sells,
  blocking false
);

/* Worth knowing, no reason to stop: a product that nobody bought. (Nobody ever buys the gift card.) */
SELECT *
FROM @this_model
WHERE
  units < @least_units;
