"""What an instructor wants to know of a class: which exercise, which property, which mistake.

A mistake has a name where a check recognised what it leads to ("it looks as if the discount is
missing"), and where an answer raised an exception. Nothing here names a student.
"""

from __future__ import annotations

import html
import re
import statistics as numbers
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from irlbook.exercises.feedback import page_head
from irlbook.exercises.model import in_order
from irlbook.exercises.submissions import Result, Submission
from irlbook.exercises.tables import csv_text

__all__ = [
    "ExerciseStatistics",
    "class_statistics",
    "mistake_of",
    "statistics_csv",
    "statistics_page",
    "statistics_path",
]

_LOOKS = "it looks as if "
_RAISED = re.compile(r"your code raised (\w{1,60})")


@dataclass
class ExerciseStatistics:
    """One exercise in one class.

    Attributes:
        points: of each notebook that was graded (a written answer counts when it was read).
        passed, failed, waiting: how many notebooks have all points, have not, wait for a reader.
        properties: property -> how many notebooks fail it.
        mistakes: named mistake -> how many notebooks show it.
    """

    id: str
    title: str
    maximum: float
    points: list[float] = field(default_factory=list)
    passed: int = 0
    failed: int = 0
    waiting: int = 0
    properties: Counter[str] = field(default_factory=Counter)
    mistakes: Counter[str] = field(default_factory=Counter)

    @property
    def median(self) -> float | None:
        """The median of the points; None before the first."""
        return numbers.median(self.points) if self.points else None

    @property
    def mean(self) -> float | None:
        """The mean of the points; None before the first."""
        return numbers.fmean(self.points) if self.points else None

    def take(self, result: Result) -> None:
        """Count one result (an error of the grader's own says nothing about the class)."""
        if result.points is None:
            self.waiting += 1
        elif result.status != "error":
            self.points.append(result.points)
            full = result.points >= self.maximum
            self.passed += full
            self.failed += not full
            self.properties.update(filter(None, {result.property, *result.also}))
            self.mistakes.update(filter(None, [mistake_of(result)]))


def mistake_of(result: Result) -> str:
    """The named mistake of a failed result ("": it has no name)."""
    if result.detail.startswith(_LOOKS):
        return result.detail.removeprefix(_LOOKS)
    raised = _RAISED.match(result.detail)
    return f"the code raised {raised[1]}" if raised else ""


def class_statistics(submissions: Iterable[Submission]) -> list[ExerciseStatistics]:
    """The statistics of every exercise that was handed in, in the order of the book."""
    found: dict[str, ExerciseStatistics] = {}
    for submission in submissions:
        for exercise in submission.exercises:
            result = submission.results.get(exercise.id)
            if result is not None:
                new = ExerciseStatistics(exercise.id, exercise.title, exercise.points)
                found.setdefault(exercise.id, new).take(result)
    return sorted(found.values(), key=lambda e: in_order(e.id))


def statistics_path(out_csv: Path) -> Path:
    """Where the page lies: `grades.csv` -> `grades_statistics.html`; the table beside it, .csv."""
    return out_csv.with_name(f"{out_csv.stem}_statistics.html")


def statistics_csv(found: Sequence[ExerciseStatistics]) -> str:
    """One row an exercise, then one a property and one a mistake, with how many notebooks."""
    rows: list[list[object]] = [
        ["exercise", "kind", "what", "notebooks", "share", "median", "mean", "max"]
    ]
    for e in found:
        total = len(e.points)
        rows.append([e.id, "graded", e.title, total, 1.0, e.median, e.mean, e.maximum])
        counts = [("all points", "", e.passed), ("not all points", "", e.failed)]
        counts += [("waits for a reader", "", e.waiting)] * bool(e.waiting)
        counts += [("fails", name, n) for name, n in e.properties.most_common()]
        counts += [("mistake", name, n) for name, n in e.mistakes.most_common()]
        rows += [[e.id, kind, what, n, n / total if total else None] for kind, what, n in counts]
    return csv_text([[*row, *[None] * (8 - len(row))] for row in rows])


def statistics_page(found: Sequence[ExerciseStatistics], title: str = "The class") -> str:
    """One self-contained HTML page; everything in it is escaped."""
    out = [*page_head(title), f"<h1>{html.escape(title)}</h1>"]
    out.append("<table><thead><tr><th>exercise</th><th>median</th><th>mean</th><th>of</th>")
    out.append("<th>all points</th><th>not all</th><th>to read</th></tr></thead><tbody>")
    for e in found:
        name = f'<a href="#e{e.id}">{html.escape(e.id)}</a> {html.escape(e.title)}'
        figures = [_number(e.median), _number(e.mean), f"{e.maximum:g}", e.passed, e.failed]
        cells = "".join(f"<td>{cell}</td>" for cell in (name, *figures, e.waiting))
        out.append(f"<tr>{cells}</tr>")
    out.append("</tbody></table>")
    for e in found:
        out.append(
            f'<h2 id="e{html.escape(e.id)}">{html.escape(e.id)} · {html.escape(e.title)}</h2>'
        )
        if not e.properties and not e.mistakes:
            out.append("<p>No property failed.</p>" if e.points else "<p>Nothing to count yet.</p>")
        for words, counter in (("what fails", e.properties), ("named mistake", e.mistakes)):
            if counter:
                out.append(f"<table><thead><tr><th>{words}</th><th>notebooks</th></tr></thead>")
                out.append("<tbody>")
                out += [
                    f"<tr><td>{html.escape(name)}</td><td>{n} of {len(e.points)}</td></tr>"
                    for name, n in counter.most_common()
                ]
                out.append("</tbody></table>")
    return "\n".join([*out, "</body></html>", ""])


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"
