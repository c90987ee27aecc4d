CREATE SCHEMA raw;
CREATE TABLE raw.orders (id INT, day DATE, amount INT);
CREATE TABLE raw.words (word TEXT, number TEXT);
INSERT INTO raw.orders
SELECT i + 1, DATE '2026-01-01' + (i // 3)::INT, i + 1
FROM (SELECT UNNEST(GENERATE_SERIES(0, 14)) AS i);
INSERT INTO raw.words VALUES ('one', '1'), ('two', '2');
