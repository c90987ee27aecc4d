"""Write a SQLMesh project of any size on DuckDB.

Layers of models read each other, and have audits, crons and tags. The same arguments give the
same files, so that numbers of two runs can be compared.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CRONS = ("@daily", "@hourly", "*/5 * * * *")

_CONFIG = """\
gateways:
  local:
    connection:
      type: duckdb
      database: {database}
default_gateway: local
model_defaults:
  dialect: duckdb
  start: {start}
"""

_FIRST_LAYER = """\
SELECT
{columns}
FROM RANGE(10) AS numbers(n)
"""

_JOINED = """\
WITH first AS (
  SELECT
    *,
    ROW_NUMBER() OVER (PARTITION BY c0 ORDER BY c1) AS place
  FROM {left}
)
SELECT
{columns}
FROM first AS f
LEFT JOIN {right} AS r
  ON r.c0 = f.c0
"""


_AUDITS = (
    "not_null(columns := (c0))",
    "number_of_rows(threshold := 1)",
    *(f"at_least_one(column := c{index})" for index in range(9)),
)


@dataclass(frozen=True, kw_only=True)
class Shape:
    """How large a project is."""

    models: int
    columns: int = 10
    layers: int = 10
    audits: int = 2  # per model
    start: str = "2026-01-01"
    crons: tuple[str, ...] = CRONS
    groups: bool = True  # a tag for the group in Dagster

    @property
    def width(self) -> int:
        """Models per layer; the last layer has what is left."""
        return max(1, -(-self.models // self.layers))


def generate_project(folder: Path, shape: Shape) -> Path:
    """Write the project into `folder`, which is made, and return it."""
    (folder / "models").mkdir(parents=True)
    (folder / "config.yaml").write_text(
        _CONFIG.format(database="bench.db", start=shape.start), encoding="utf-8"
    )
    for number in range(shape.models):
        layer, place = divmod(number, shape.width)
        directory = folder / "models" / f"layer_{layer}"
        directory.mkdir(exist_ok=True)
        (directory / f"model_{place}.sql").write_text(_model(shape, layer, place), encoding="utf-8")
    return folder


def _model(shape: Shape, layer: int, place: int) -> str:
    audits = ", ".join(_AUDITS[: shape.audits])
    group = f", 'dagster:group_name:layer_{layer}'" if shape.groups else ""
    properties = [
        f"name {_name(layer, place)}",
        "kind FULL",
        f"cron '{shape.crons[place % len(shape.crons)]}'",
        f"tags (layer_{layer}{group})",
        f"description 'Model {place} of layer {layer}.'",
        *([f"audits ({audits})"] if audits else []),
    ]
    header = "MODEL (\n  " + ",\n  ".join(properties) + "\n);\n\n"
    columns = ",\n".join(
        f"  {expression} AS c{index}" for index, expression in enumerate(_columns(shape, layer))
    )
    if layer == 0:
        return header + _FIRST_LAYER.format(columns=columns)
    left, right = (_name(layer - 1, (place + step) % shape.width) for step in (0, 1))
    return header + _JOINED.format(columns=columns, left=left, right=right)


def _columns(shape: Shape, layer: int) -> Iterator[str]:
    for index in range(shape.columns):
        if index == 0:
            yield (
                "n::BIGINT" if layer == 0 else "f.c0::BIGINT"
            )  # unique: what joins on it stays at ten rows in every layer
        elif layer == 0:
            yield f"(n + {index})::BIGINT" if index % 3 else f"(n % {index + 7})::BIGINT"
        elif index % 3 == 0:
            yield f"COALESCE(r.c{index}, f.c{index}, f.place)::BIGINT"
        else:
            yield f"(f.c{index} + COALESCE(r.c{index - 1}, 0))::BIGINT"


def _name(layer: int, place: int) -> str:
    return f"layer_{layer}.model_{place}"


def main() -> None:
    """Write a project as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where to write it; replaced")
    parser.add_argument("--models", type=int, default=100)
    parser.add_argument("--columns", type=int, default=10, help="per model")
    parser.add_argument("--layers", type=int, default=10)
    parser.add_argument("--audits", type=int, default=2, choices=range(12), help="per model")
    parser.add_argument("--start", default="2026-01-01", help="the models' start")
    arguments = vars(parser.parse_args())
    print(generate_project(arguments.pop("folder"), Shape(**arguments)))


if __name__ == "__main__":
    main()
