MODEL (name nasty.history, kind SCD_TYPE_2_BY_COLUMN (unique_key customer_id, columns [name]));
SELECT customer_id::INT, name::TEXT FROM nasty.stars
