"""Write the raw tables, so that SQLMesh has something to plan on before Dagster ran for the first time."""

from raw_data import write_raw_tables

if __name__ == "__main__":
    for table, rows in write_raw_tables().items():
        print(f"{table}: {rows} rows")
