MODEL (name nasty.pivoted, kind FULL);
SELECT * FROM (SELECT customer_id, country, name FROM raw.customers) AS c PIVOT (COUNT(name) FOR country IN ('ch', 'nl'))
