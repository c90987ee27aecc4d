MODEL (
  name marts.in_steps,
  kind INCREMENTAL_BY_UNIQUE_KEY (unique_key id, batch_size 1),
  audits (not_null(columns := (id)))
);

/* Its second batch fails; the third waits for it, in vain. */
SELECT @start_ds AS id, CAST(CASE WHEN @start_ds = '2026-01-03' THEN 'many' ELSE '1' END AS INT) AS amount
