MODEL (name audited.daily_view, kind VIEW);

SELECT day, amount FROM audited.daily
