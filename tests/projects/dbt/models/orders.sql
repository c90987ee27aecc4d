{{ config(materialized="incremental", incremental_strategy="delete+insert", unique_key="id", tags=["money"]) }}

SELECT o.id, o.amount, c.full_name
FROM {{ source("raw", "orders") }} AS o
LEFT JOIN {{ ref("customers") }} AS c
  ON c.customer = o.customer
