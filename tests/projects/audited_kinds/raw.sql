CREATE SCHEMA raw;
CREATE TABLE raw.orders (id INT, customer TEXT, amount INT, day DATE, changed_at TIMESTAMP);
CREATE TABLE raw.words (word TEXT, number TEXT);
INSERT INTO raw.orders
SELECT i + 1, ['ann', 'bob', 'cid'][(i % 3 + 1)::INT], i + 1, DATE '2026-01-01' + (i // 3)::INT, TIMESTAMP '2026-01-01'
FROM (SELECT UNNEST(GENERATE_SERIES(0, 17)) AS i);
INSERT INTO raw.words VALUES ('one', '1'), ('two', '2');
