{{ config(materialized='table') }}

SELECT day, revenue FROM {{ source('marts', 'revenue') }} ORDER BY revenue DESC LIMIT 1
