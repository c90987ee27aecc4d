"""Where events go: to Dagster (pipes), to a person (terminal, lines), to a file (jsonl)."""
