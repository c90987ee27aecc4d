MODEL (name mart.countries, kind SCD_TYPE_2_BY_COLUMN (unique_key code, columns [name]));
SELECT code::TEXT, name::TEXT FROM staging.lookup
