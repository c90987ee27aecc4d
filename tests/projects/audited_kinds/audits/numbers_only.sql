AUDIT (
  name numbers_only,
  standalone true,
  dialect duckdb
);

SELECT w.word FROM raw.words AS w WHERE w.number = 'many'
