MODEL (name nasty.ctes, kind FULL);
WITH spent AS (
  SELECT customer_id, SUM(amount) AS total, MAX(ordered_at) AS latest FROM raw.orders GROUP BY customer_id
), ranked AS (
  SELECT s.*, ROW_NUMBER() OVER (PARTITION BY c.country ORDER BY s.total DESC) AS place, c.name
  FROM spent AS s JOIN raw.customers AS c ON c.customer_id = s.customer_id
), spent_again AS (SELECT * FROM ranked)
SELECT r.customer_id, r.total, r.place, r.latest, UPPER(r.name) AS name,
  CASE WHEN a.total > 10 THEN r.name ELSE 'small' END AS size
FROM ranked AS r LEFT JOIN spent_again AS a ON a.customer_id = r.customer_id
