{{ config(materialized="view") }}

SELECT * FROM {{ ref("totals") }}
