-- The third day has an order without an id: by_time stops there. One word is no number. Customers and amounts changed.
UPDATE raw.orders SET id = NULL WHERE id = 8;
UPDATE raw.orders SET amount = -1 WHERE id IN (4, 10, 11);
UPDATE raw.orders SET customer = 'dan', changed_at = TIMESTAMP '2026-01-03' WHERE id = 2;
INSERT INTO raw.words VALUES ('three', 'many'), ('one', '1');
