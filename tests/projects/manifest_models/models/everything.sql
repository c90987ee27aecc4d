MODEL (name mart.everything, kind FULL, cron_tz 'Europe/Zurich', interval_unit 'hour', start '2024-01-05', end '2024-01-06');
SELECT * FROM staging.events
