import typing as t

from sqlmesh import CustomMaterialization, Model


class LoggedAndInserted(CustomMaterialization):
    """Replaces the table's rows, as FULL does."""

    NAME = "logged_and_inserted"

    def insert(
        self,
        table_name: str,
        query_or_df: t.Any,
        model: Model,
        is_first_insert: bool,
        *args: t.Any,
        **kwargs: t.Any,
    ) -> None:
        self.adapter.replace_query(table_name, query_or_df)
