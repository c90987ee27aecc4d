MODEL (name two.report, kind FULL, audits (number_of_rows(threshold := 0))); SELECT COUNT(*) AS rows FROM two.source
