MODEL (name audited.after_restated, kind INCREMENTAL_BY_TIME_RANGE (time_column day));

SELECT id, day FROM audited.restated WHERE day BETWEEN @start_date AND @end_date
