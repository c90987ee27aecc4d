UPDATE raw.orders SET id = 8 WHERE id IS NULL;
DELETE FROM raw.words WHERE number = 'many';
DELETE FROM raw.orders WHERE id = 3;
