MODEL (name nasty.unnested, kind FULL);
SELECT o.order_id, tag, LENGTH(tag) AS letters FROM raw.orders AS o CROSS JOIN UNNEST(o.tags) AS t(tag)
