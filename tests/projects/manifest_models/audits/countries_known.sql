AUDIT (name countries_known, standalone true, owner analysts, cron '@weekly');
SELECT * FROM mart.countries WHERE name IS NULL
