MODEL (name staging.lookup, kind EMBEDDED);
SELECT code, UPPER(name) AS name FROM staging.countries
