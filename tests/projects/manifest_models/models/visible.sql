MODEL (name mart.visible, kind VIEW);
SELECT * EXCLUDE (amount) FROM mart.everything
