from sqlmesh import CustomMaterialization


class ElsewhereMaterialization(CustomMaterialization):
    NAME = "elsewhere"

    def insert(self, table_name, query_or_df, model, is_first_insert, *args, **kwargs):
        """Write to something that is no table: here, to nothing. Only the plan needs one, for its view."""
        self.adapter.drop_table(table_name)
        if is_first_insert:
            self.adapter.ctas(table_name, query_or_df)
