MODEL (name mart.everything_again, kind VIEW);
SELECT e.*, u.* EXCLUDE (id) FROM mart.everything AS e LEFT JOIN raw.undeclared AS u USING (id)
