"""The table that a learning platform takes back: its own columns, and the grades.

It is the roster again, written as it was found (separator, encoding, order of columns and rows),
with one column filled in. A grade that is not final stays empty, which changes nothing on the
platform: nobody gets a zero by accident.
"""

from __future__ import annotations

import html
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from irlbook.exercises.roster import Roster
from irlbook.exercises.submissions import Submission
from irlbook.exercises.tables import csv_text

__all__ = ["Grade", "class_maximum", "grades_of", "upload_table"]


@dataclass(frozen=True)
class Grade:
    """A student's grade: None, and why, as long as it is not final."""

    points: float | None
    why: str = ""


def grades_of(submissions: Iterable[Submission]) -> dict[str, Grade]:
    """The grade of each student, over the notebooks of this run, late or not."""
    by_student: dict[str, list[Submission]] = defaultdict(list)
    for submission in submissions:
        by_student[submission.student].append(submission)
    grades = {}
    for student, own in by_student.items():
        graded = [s for s in own if s.exercises]
        chapters = Counter(s.chapter for s in graded)
        if not graded:
            grades[student] = Grade(None, own[0].message)
        elif any(n > 1 for n in chapters.values()):
            grades[student] = Grade(None, "more than one notebook for a chapter")
        elif any(s.status != "graded" for s in graded):
            why = next(s.status for s in graded if s.status != "graded")
            unread = "a written answer is unread"
            grades[student] = Grade(None, unread if why == "needs manual" else why)
        else:
            grades[student] = Grade(sum(s.final for s in graded))
    return grades


def class_maximum(submissions: Iterable[Submission]) -> float:
    """Points that can be had in the chapters of this run."""
    return sum({s.chapter: s.maximum for s in submissions if s.exercises}.values())


def _number(text: str) -> float:
    try:
        return float(text.replace(",", "."))
    except ValueError:
        return 0.0


def upload_table(
    roster: Roster, grades: dict[str, Grade], assignment: str, maximum: float
) -> tuple[str, str]:
    """The file to upload, as text, and a sentence about the scale where it is another.

    Args:
        roster: as it was exported from the platform.
        grades: of `grades_of`.
        assignment: the name of the column: in Canvas as the export has it ("Sheet 3 (1234)"), or a
            new one. Moodle's worksheet has its own, "Grade".
        maximum: points that can be had. Where the platform has another maximum, grades are scaled.
    """
    header, rows = list(roster.table.header), [list(row) for row in roster.table.rows]
    lower = [name.strip().casefold() for name in header]
    width = len(header)
    rows = [[*row, *[""] * (width - len(row))][:width] for row in rows]
    said = ""
    feedback = None
    if roster.kind == "moodle worksheet":
        column = lower.index("grade")
        tops = [lower.index("maximum grade")] if "maximum grade" in lower else []
        feedback = lower.index("feedback comments") if "feedback comments" in lower else None
    else:
        wanted = assignment.strip().casefold()
        same = [n for n, name in enumerate(lower) if name.split(" (")[0] == wanted]
        if wanted in lower:
            same = [lower.index(wanted)]
        tops = []
        if len(same) == 1:
            column = same[0]
        else:
            header, column = [*header, assignment], width
            rows = [[*row, ""] for row in rows]
        if roster.kind == "canvas":
            keep = [
                n
                for n, name in enumerate(lower)
                if name in ("student", "id", "sis user id", "sis login id", "section")
            ]
            order = [*keep, column]
            header = [header[n] for n in order]
            rows = [[row[n] for n in order] for row in rows]
            column = len(keep)
    possible = [n for n, row in enumerate(rows) if row[0].strip() == "Points Possible"]
    places = {student.row: student for student in roster.students}
    scale = 1.0
    if roster.kind == "canvas" and possible:
        there = _number(rows[possible[0]][column])
        scale = there / maximum if there and maximum else 1.0
        rows[possible[0]][column] = f"{there or maximum:g}"
    elif roster.kind == "canvas":
        rows.insert(0, ["    Points Possible", *[""] * (len(header) - 2), f"{maximum:g}"])
        places = {number + 1: student for number, student in places.items()}
    for number, student in places.items():
        row = rows[number]
        grade = grades.get(student.key, Grade(None))
        own = (
            _number(row[tops[0]]) / maximum if tops and maximum and _number(row[tops[0]]) else scale
        )
        if own != 1.0:
            said = (
                f"grades are scaled by {own:g}: the platform has another maximum than {maximum:g}"
            )
        if grade.points is None:
            row[column] = ""
            continue
        row[column] = f"{grade.points * own:.6g}"
        if feedback is not None:
            row[feedback] = html.escape(f"{grade.points:g} of {maximum:g} points")
    kept = [row for n, row in enumerate(rows) if n in places or row[0].strip() == "Points Possible"]
    return csv_text([header, *kept], roster.table.delimiter), said
