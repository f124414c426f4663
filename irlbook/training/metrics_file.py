"""Read what a run has measured: metrics.csv, a row a step. Quick to import."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path

from irlbook.errors import MetricsError

__all__ = ["read_metrics"]


def read_metrics(path: Path | str) -> list[dict[str, float]]:
    """The rows of a metrics.csv; empty cells are left out, and a last row that a kill cut off.

    Raises:
        MetricsError: the file is not a table of numbers with a column `step`; line and column are
            named.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise MetricsError(f"{path} is no text ({error.reason}), so no metrics.csv") from error
    return list(_rows(path, text[: text.rfind("\n") + 1]))


def _rows(path: Path | str, text: str) -> Iterator[dict[str, float]]:
    table = csv.reader(io.StringIO(text), strict=True)
    try:
        columns = next(table, None)
        if columns is None:
            return
        if "step" not in columns:
            raise MetricsError(f"{path} has no column step, so it is no metrics.csv of a run")
        for cells in table:
            where = f"{path}, line {table.line_num}"
            if len(cells) != len(columns):
                raise MetricsError(
                    f"{where}: {len(cells)} cells under {len(columns)} columns. Remove the line, "
                    "or start the run over with --restart"
                )
            pairs = zip(columns, cells, strict=True)
            row = {name: _number(cell, name, where) for name, cell in pairs if cell}
            if not float(row.get("step", 0.5)).is_integer():
                raise MetricsError(f"{where}: the step is no whole number; remove the line")
            yield {**row, "step": int(row["step"])}
    except csv.Error as error:
        raise MetricsError(f"{path}, line {table.line_num}: damaged ({error})") from error


def _number(cell: str, name: str, where: str) -> float:
    try:
        return float(cell)
    except ValueError:
        raise MetricsError(
            f"{where}: {cell[:40]!r} in column {name} is no number; remove the line, or start the "
            "run over with --restart"
        ) from None
