"""Write the raw tables: SQLMesh is planned before Dagster runs for the first time."""

from raw_data import write_raw_tables

if __name__ == "__main__":
    for table, rows in write_raw_tables().items():
        print(f"{table}: {rows} rows")
