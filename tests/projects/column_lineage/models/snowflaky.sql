MODEL (name nasty.snowflaky, kind VIEW, dialect snowflake);
SELECT o.order_id, f.value AS tag, o.amount AS "Quoted" FROM raw.orders AS o, LATERAL FLATTEN(input => o.tags) AS f
