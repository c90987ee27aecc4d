CREATE SCHEMA raw;
CREATE TABLE raw.plans AS SELECT 0 AS finalized;
