import typing as t

from sqlmesh import CustomMaterialization


class ByHand(CustomMaterialization):
    """Replaces the table, as FULL does."""

    NAME = "by_hand"

    def insert(self, table_name: str, query_or_df: t.Any, *args: t.Any, **kwargs: t.Any) -> None:
        self.adapter.replace_query(table_name, query_or_df)
