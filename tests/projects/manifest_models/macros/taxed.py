from sqlmesh import macro
from sqlmesh.core.macros import MacroEvaluator


@macro()
def taxed(evaluator: MacroEvaluator, amount: object) -> str:
    return f"{amount} * 1.2"
