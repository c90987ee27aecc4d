import os

from sqlmesh import macro


@macro()
def region(evaluator):
    return f"'{os.environ.get('REGION', 'UNSET')}'"
