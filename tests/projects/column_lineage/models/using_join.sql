MODEL (name nasty.using_join, kind VIEW);
SELECT customer_id, name || country AS label, amount FROM raw.orders JOIN raw.customers USING (customer_id)
