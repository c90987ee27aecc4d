MODEL (name told.daily_view, kind VIEW);

SELECT day, amount FROM told.daily
