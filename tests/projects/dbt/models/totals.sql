{{ config(materialized="table") }}

SELECT full_name, SUM(amount)::INT AS amount
FROM {{ ref("orders") }}
GROUP BY full_name
