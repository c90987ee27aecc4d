MODEL (
  name marts.inserted_whole,
  kind CUSTOM (materialization 'logged_and_inserted')
);

SELECT id, customer
FROM raw.orders
