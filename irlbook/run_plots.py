"""Pictures of training runs: what each has measured, beside what a chapter calls normal.

The ranges stand in one table, `results/normal_ranges.csv`, with the chapter that each comes from.
Those of `where` "book" were measured on the book's own model and world; elsewhere they are a guide.
"""

import csv
import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from irlbook.errors import MetricsError
from irlbook.plotting import COLORS, use_style
from irlbook.training.metrics_file import read_metrics

__all__ = [
    "Kind",
    "LABELS",
    "Range",
    "RunRecord",
    "draw_runs",
    "in_words",
    "normal_ranges",
    "read_run",
    "smoothed",
]

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Kind = Literal["sft", "reward", "preferences", "dpo", "online", "rounds"]

_TABLE = Path(__file__).parent / "results" / "normal_ranges.csv"

_PANELS: dict[str, tuple[str, ...]] = {
    "sft": ("loss", "grad_norm"),
    "reward": ("loss", "accuracy", "margin", "grad_norm"),
    "preferences": ("loss", "accuracy", "margin", "kl", "chosen_logp", "grad_norm"),
    "dpo": ("loss", "accuracy", "margin", "kl", "chosen_logp", "grad_norm"),
    "online": ("reward", "gold", "kl", "entropy", "length", "ended", "loss", "grad_norm"),
    "rounds": ("reward", "gold", "kl", "ended"),
}
_ALSO = ("clip_fraction", "explained_variance")  # drawn where a run has them

LABELS: dict[str, str] = {
    "reward": "reward",
    "gold": "gold reward",
    "kl": "KL to the start (nats per response)",
    "entropy": "entropy (nats per token)",
    "length": "length (tokens per response)",
    "ended": "share that ended by itself",
    "loss": "loss",
    "accuracy": "accuracy",
    "margin": "margin of the preferred",
    "chosen_logp": "log-probability of the preferred",
    "grad_norm": "gradient norm, before clipping",
    "clip_fraction": "share clipped",
    "explained_variance": "explained variance",
}
"""What each panel is called, in the order in which they stand."""

_WHY_MISSING = {
    "gold": "give --gold to measure it",
    "kl": "give --kl-prompts to measure it",
}


@dataclass(frozen=True)
class Range:
    """A row of the table of normal ranges.

    Attributes:
        kind: of which runs: sft, reward, dpo, online (policy gradients) or rounds (RAFT ...).
        column: of metrics.csv.
        moment: "start", "end" or "all" of the run.
        measure: "value" itself, its "ratio" to the start, or its "rise" since the start.
        low, high: the bounds; where they are equal, a mark to look at and no bound.
        where: "any" run, or runs on the "book"'s own model and world.
        meaning: what it says, or what to look at where the run is outside.
        source: chapter and section.
    """

    kind: str
    column: str
    moment: str
    measure: str
    low: float
    high: float
    where: str
    meaning: str
    source: str


@dataclass(frozen=True)
class RunRecord:
    """What a run has measured.

    Attributes:
        name: what the picture calls it.
        kind: which panels and ranges it has.
        rows: of metrics.csv, in order.
    """

    name: str
    kind: Kind
    rows: list[dict[str, float]]

    def series(self, column: str) -> tuple[np.ndarray, np.ndarray]:
        """(steps, values) of a column where it is there and finite; empty when it is not."""
        found = [
            (r["step"], r[column]) for r in self.rows if math.isfinite(r.get(column, math.nan))
        ]
        steps, values = np.array(found, dtype=float).reshape(-1, 2).T
        return steps, values


@cache
def normal_ranges() -> tuple[Range, ...]:
    """The table of what the chapters call normal."""
    with _TABLE.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return tuple(
        Range(
            **{name: text for name, text in row.items() if name not in ("low", "high")},
            low=float(row["low"] or -math.inf),
            high=float(row["high"] or math.inf),
        )
        for row in rows
    )


def read_run(folder: Path | str) -> RunRecord:
    """Read a run's folder, finished or not, or a metrics.csv itself.

    Raises:
        MetricsError: there is none, it is empty, or it is damaged.
    """
    path = Path(folder)
    name = path.name
    if path.is_dir() or path.suffix != ".csv":
        path = path / "metrics.csv"
    else:
        name = path.parent.name or path.stem
    if not path.is_file():
        inside = sorted(one.parent.name for one in path.parent.glob("*/metrics.csv"))
        runs = f" Runs in it: {', '.join(inside)}." if inside else ""
        raise MetricsError(
            f"{folder} is no run: there is no {path}.{runs} irlbook train writes one at its first "
            "step"
        )
    rows = read_metrics(path)
    if not rows:
        raise MetricsError(f"{path} has no rows yet; wait for the first step of the run")
    return RunRecord(name or path.parent.resolve().name, _kind(path.parent, rows), rows)


def _kind(folder: Path, rows: Sequence[dict[str, float]]) -> Kind:
    """Which training it was: what it has measured says so."""
    columns = {name for row in rows for name in row}
    if columns & {"kept", "pairs"}:
        return "rounds"
    if "reward" in columns:
        return "online"
    if "chosen_reward" in columns or "chosen_logp" in columns:
        # other losses of the family start elsewhere than at log 2
        return "dpo" if re.search(r"loss='(dpo|robust)'", _objective(folder)) else "preferences"
    return "reward" if "accuracy" in columns else "sft"


def _objective(folder: Path) -> str:
    for state in sorted(folder.glob("checkpoints/step-*/state.json"), reverse=True):
        try:
            return str(json.loads(state.read_text(encoding="utf-8"))["objective"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return ""


def smoothed(values: np.ndarray) -> np.ndarray:
    """(T,) the mean of each value and those before it, a tenth of the run and ten at most."""
    window = _window(len(values))
    sums = np.cumsum(np.concatenate([[0.0], values]))
    ends = np.arange(1, len(values) + 1)
    begins = np.maximum(0, ends - window)
    return (sums[ends] - sums[begins]) / (ends - begins)


def _window(rows: int) -> int:
    return max(1, min(10, rows // 10))


# In words -----------------------------------------------------------------------------------------


def in_words(run: RunRecord) -> Iterator[str]:
    """What of a run is not normal by the table, what is, and what it has not measured."""
    fitting = []
    for row in normal_ranges():
        if row.kind != run.kind or row.low == row.high:
            continue
        found = _measured(run, row)
        if found is None:
            continue
        if row.low <= found <= row.high:
            fitting.append(_worded(row, found))
            continue
        place = " on the book's model" if row.where == "book" else ""
        yield (
            f"look at: {_worded(row, found)}; {_bounds(row)} is normal{place}. "
            f"{row.meaning[0].upper()}{row.meaning[1:]} ({row.source})."
        )
    if fitting:
        yield f"normal: {', '.join(fitting)}"
    wild = [c for c in LABELS if any(not math.isfinite(r.get(c, 0.0)) for r in run.rows)]
    if wild:
        yield f"look at: {', '.join(wild)}; not finite in places, which the picture leaves open"
    for column in _missing(run):
        why = _WHY_MISSING.get(column, "this run does not measure it")
        yield f"left out: {column}; {why}"


def _measured(run: RunRecord, row: Range) -> float | None:
    """The number that a range speaks of: at the start, at the end, or the highest on the way.

    The end is that on held-out data, where there are any; the others are running means.
    """
    _, values = run.series(row.column)
    if len(values) < (1 if row.moment == "start" else 2):
        return None
    _, held_out = run.series(f"held_out_{row.column}")
    early = float(values[0] if row.measure == "value" else values[: _window(len(values))].mean())
    if row.moment == "start":
        return early
    late = float(smoothed(values).max() if row.moment == "all" else smoothed(values)[-1])
    if row.moment == "end" and len(held_out) > 1:
        late = float(held_out[-1])
    if row.measure == "ratio":
        return late / early if early else math.inf
    return late - early if row.measure == "rise" else late


def _worded(row: Range, found: float) -> str:
    if row.measure == "rise":
        return f"{row.column} {found:+.3g} since the start"
    moment = {"start": "at the start", "end": "at the end", "all": "at its highest"}[row.moment]
    return f"{row.column} {found:.3g}{' times its start' * (row.measure == 'ratio')} {moment}"


def _bounds(row: Range) -> str:
    if math.isinf(row.low):
        return f"{row.high:g} or less"
    return f"{row.low:g} or more" if math.isinf(row.high) else f"{row.low:g} to {row.high:g}"


def _missing(run: RunRecord) -> list[str]:
    return [column for column in _PANELS[run.kind] if not len(run.series(column)[0])]


# As a picture -------------------------------------------------------------------------------------


def draw_runs(runs: Sequence[RunRecord]) -> "Figure":
    """Draw each measure of the runs in a panel of its own, one colour a run.

    A thin line is what was measured, a thick one its running mean, a dashed one is held out. A grey
    band is what the table of ranges calls normal, where all runs are of one kind.
    """
    from matplotlib.figure import Figure  # not pyplot's, which keeps it open until it is closed

    use_style()
    columns = [c for c in LABELS if any(len(run.series(c)[0]) for run in runs if _wants(run, c))]
    if not columns:
        raise MetricsError(
            f"{', '.join(run.name for run in runs)}: nothing that was measured can be drawn yet"
        )
    across = min(3, len(columns))
    down = math.ceil(len(columns) / across)
    figure = Figure(figsize=(4.0 * across, 2.8 * down + 0.4), dpi=100)
    grid = figure.subplots(down, across, squeeze=False)
    for ax, column in zip(grid.flat, columns, strict=False):
        for run, color in zip(runs, _colors(len(runs)), strict=True):
            _draw(ax, run, column, color)
        if len({run.kind for run in runs}) == 1:
            _draw_ranges(ax, runs, column)
        ax.set_title(LABELS[column])
        ax.set_xlabel("round" if runs[0].kind == "rounds" else "step")
        ax.margins(x=0.02)
    for ax in list(grid.flat)[len(columns) :]:
        ax.set_axis_off()
    handles = {
        label: handle
        for ax in grid.flat
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4)
    return figure


def _wants(run: RunRecord, column: str) -> bool:
    return column in _PANELS[run.kind] or column in _ALSO


def _colors(runs: int) -> list[str]:
    named = [color for name, color in COLORS.items() if name != "yellow"]
    return [named[i % len(named)] for i in range(runs)]


def _draw(ax: "Axes", run: RunRecord, column: str, color: str) -> None:
    steps, values = run.series(column)
    many = len(values) >= 20
    if len(values):
        style = {"lw": 0.7, "alpha": 0.4} if many else {"lw": 1.6, "marker": "o", "ms": 3}
        ax.plot(steps, values, color=color, label=None if many else run.name, **style)
        if many:
            ax.plot(steps, smoothed(values), color=color, lw=1.8, label=run.name)
    steps, values = run.series(f"held_out_{column}")
    if len(values):
        ax.plot(steps, values, color=color, ls="--", lw=1.4, label=f"{run.name}, held out")


def _draw_ranges(ax: "Axes", runs: Sequence[RunRecord], column: str) -> None:
    """Bands behind the lines; the axis reaches to where the nearest one begins."""
    low, high = ax.get_ylim()
    left, right = ax.get_xlim()
    bands = []
    for row in normal_ranges():
        values = runs[0].series(column)[1]
        if row.kind != runs[0].kind or row.column != column or not len(values):
            continue
        if row.measure != "value" and len(runs) > 1:
            continue  # each run has a start of its own
        start = float(values[: _window(len(values))].mean())
        bottom, top = {
            "value": (row.low, row.high),
            "ratio": (row.low * start, row.high * start),
            "rise": (row.low + start, row.high + start),
        }[row.measure]
        low, high = min(low, top), max(high, bottom)
        bands.append((row, bottom, top))
    room = 0.06 * (high - low)
    low, high = low - room, high + room
    for row, bottom, top in bands:
        share = {"start": (0, 0.12), "end": (0.75, 1), "all": (0, 1)}[row.moment]
        book = row.where == "book"
        style: dict[str, Any] = {
            "color": COLORS["sky"] if book else "0.5",
            "label": f"normal{', on the book’s model' if book else ''} (by its chapter)",
        }
        if bottom == top:
            ax.axhline(bottom, lw=1, ls=":", zorder=0, **style)
        else:
            ends = [left + one * (right - left) for one in share]
            inside = np.clip([bottom, top], low, high)
            ax.fill_between(ends, *inside, alpha=0.22, lw=0, zorder=0, **style)
    chapters = sorted({row.source.partition(":")[0] for row, _, _ in bands})
    note = ", ".join(chapters)
    ax.annotate(
        note, (1, 1), xycoords="axes fraction", ha="right", va="top", fontsize=7, color="0.4"
    )
    ax.set_ylim(low, high)
    ax.set_xlim(left, right)
