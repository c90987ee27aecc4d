from sqlmesh import CustomMaterialization


class ElsewhereMaterialization(CustomMaterialization):
    NAME = "elsewhere"

    def insert(self, table_name, query_or_df, model, is_first_insert, *args, **kwargs):
        """Write no rows. Only the plan needs a table, for its view."""
        self.adapter.drop_table(table_name)
        if is_first_insert:
            self.adapter.ctas(table_name, query_or_df)
