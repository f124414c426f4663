"""What was handed in late, by how much, and what that costs.

Lateness comes from the file names of Canvas (LATE, without a time), from Moodle's grading
worksheet, or from a table of one's own; a policy makes a factor of it. Points, factor and the final
points all stand in the table: nothing is taken off in silence.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from irlbook.errors import InvalidHyperparameterError, RosterError
from irlbook.exercises.roster import Roster
from irlbook.exercises.submissions import Submission
from irlbook.exercises.tables import Table, read_csv

__all__ = ["LatePolicy", "Lateness", "duration", "moment", "note_lateness", "read_lateness"]

_UNITS = {  # hours in what platforms and people write
    **dict.fromkeys(("y", "yr", "yrs", "year", "years"), 365 * 24.0),
    **dict.fromkeys(("w", "week", "weeks"), 7 * 24.0),
    **dict.fromkeys(("d", "day", "days"), 24.0),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), 1.0),
    **dict.fromkeys(("m", "min", "mins", "minute", "minutes"), 1 / 60),
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), 1 / 3600),
}
_FORMATS = (
    "%A, %d %B %Y, %I:%M %p",
    "%A, %d %B %Y, %H:%M",
    "%d %B %Y, %I:%M %p",
    "%d %B %Y, %H:%M",
)
_WHO = (
    "student",
    "login",
    "sis login id",
    "username",
    "email address",
    "email",
    "identifier",
    "id",
)
_WHEN = ("submitted", "submitted at", "last modified (submission)", "timestamp", "time")


@dataclass(frozen=True)
class Lateness:
    """How late: in hours; None where it is only known that it was late, 0 where it was not."""

    hours: float | None

    def __str__(self) -> str:
        if self.hours is None:
            return "late (no time known: counted as one day)"
        if not self.hours:
            return ""
        days, hours = divmod(self.hours, 24)
        return f"{days:g} d {hours:.3g} h late" if days else f"{hours:.3g} h late"


@dataclass(frozen=True)
class LatePolicy:
    """What lateness costs.

    Attributes:
        percent: of the points, for each day or hour begun after the time of grace.
        unit: hours in that day or hour.
        cap: the most that it costs, in percent.
        grace: hours that cost nothing.
    """

    percent: float
    unit: float = 24.0
    cap: float = 100.0
    grace: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.percent <= 100 or not 0 < self.cap <= 100 or self.grace < 0:
            raise InvalidHyperparameterError(
                f"a late policy takes more than 0 and at most 100 percent, not {self}"
            )

    def __str__(self) -> str:
        unit = "day" if self.unit == 24 else "hour"
        return f"{self.percent:g}%/{unit}, cap {self.cap:g}%, grace {self.grace:g}h"

    @classmethod
    def parse(cls, text: str) -> LatePolicy:
        """A policy as it is written: "10%/day", "10%/day, cap 50%, grace 2h", "1%/hour".

        Raises:
            InvalidHyperparameterError: it is not written so.
        """
        first, *rest = (part.strip().casefold() for part in text.split(","))
        rate = re.fullmatch(r"(\d{1,3}(?:\.\d{1,3})?) ?% ?(?:/|per|a|an) ?(day|hour)", first)
        words = {"cap": 100.0, "grace": 0.0}
        for part in rest:
            cap = re.fullmatch(r"cap (\d{1,3}(?:\.\d{1,3})?) ?%", part)
            grace = re.fullmatch(r"grace (.+)", part)
            hours = duration(grace[1]) if grace else None
            if cap:
                words["cap"] = float(cap[1])
            elif hours is not None:
                words["grace"] = hours
            else:
                rate = None
        if rate is None:
            raise InvalidHyperparameterError(
                f"no late policy: {text!r}; write it like '10%/day', '10%/day, cap 50%, grace 2h' "
                "or '1%/hour'"
            )
        return cls(float(rate[1]), 24.0 if rate[2] == "day" else 1.0, **words)

    def factor(self, late: Lateness | None) -> float:
        """What the points are multiplied by, from 1 (in time) down to 1 - cap / 100."""
        if late is None:
            return 1.0
        hours = 24.0 if late.hours is None else late.hours - self.grace
        begun = max(0, math.ceil(round(hours / self.unit, 9)))
        return 1.0 - min(self.percent * begun, self.cap) / 100.0


def duration(text: str) -> float | None:
    """Hours in "2 days 3 hours", "1d 4h", "90 min"; None if it is no duration."""
    found = re.findall(r"(\d{1,6}(?:\.\d{1,3})?) ?([a-z]+)", text.casefold())
    whole = re.fullmatch(r"(\s*\d{1,6}(\.\d{1,3})? ?[a-z]+\s*)+", text.casefold())
    if not whole or any(word not in _UNITS for _, word in found):
        return None
    return sum(float(number) * _UNITS[word] for number, word in found)


def moment(text: str) -> datetime:
    """A point in time: 2026-11-20T23:59, with a zone or without, or as Moodle writes it.

    Raises:
        RosterError: it is none.
    """
    text = " ".join(text.split())
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        pass
    for form in _FORMATS:
        try:
            return datetime.strptime(text, form)
        except ValueError:
            continue
    raise RosterError(f"{text!r} is no point in time; write it like 2026-11-20T23:59")


def _between(submitted: str, due: datetime) -> Lateness:
    when = moment(submitted)
    if (when.tzinfo is None) != (due.tzinfo is None):
        raise RosterError(
            f"{submitted!r} and the due time {due.isoformat()}: one has a time zone and one has "
            "not; give both in the same way"
        )
    return Lateness(max((when - due).total_seconds() / 3600, 0.0))


def _hours(text: str, place: str) -> float:
    hours = duration(text)
    if hours is None:
        raise RosterError(f"{place}: {text!r} is no time; write it like 2 days 3 hours")
    return hours


def _of_row(cells: dict[str, str], due: datetime | None, place: str) -> Lateness | None:
    """What a row of a table says; None where it says nothing."""
    for column, unit in (("days late", 24.0), ("hours late", 1.0)):
        if text := cells.get(column, ""):
            try:
                hours = float(text.replace(",", ".")) * unit
                if not math.isfinite(hours):
                    raise ValueError
            except ValueError:
                raise RosterError(f"{place}: {text!r} is no number of {column}") from None
            return Lateness(max(hours, 0.0))
    if text := cells.get("late", ""):
        return Lateness(_hours(text, place))
    # Moodle's worksheet: "Submitted for grading - 2 days 3 hours late"
    if status := re.search(r"- (.+) late$", cells.get("status", "")):
        return Lateness(_hours(status[1], place))
    when = next((cells[c] for c in _WHEN if cells.get(c, "-") != "-"), "")
    limit = moment(cells["due"]) if cells.get("due") else due
    return _between(when, limit) if when and limit is not None else None


def read_lateness(
    table: Table, name: str, due: datetime | None = None, roster: Roster | None = None
) -> tuple[dict[tuple[str, str], Lateness], list[str]]:
    """Who was late, and by how much, from a table.

    Args:
        table: a column that names the student, and `days late`, `hours late`, `late` ("2 days 3
            hours"), or `submitted` with a column `due` or the due time given here; Moodle's
            grading worksheet has all that. A column `chapter` bounds a row to one.
        name: what messages call the table.
        due: when it was due.
        roster: who the students are; without one they are named as in the tables.

    Returns:
        {(student, chapter or ""): lateness}, and the names that nobody has.

    Raises:
        RosterError: a time cannot be read, or no column names the student.
    """
    columns = [column.strip().casefold() for column in table.header]
    who = next((c for c in _WHO if c in columns), None)
    if who is None:
        raise RosterError(f"{name}: no column names the student ({', '.join(_WHO)})")
    found, nobody = {}, []
    for number, row in enumerate(table.rows, 2):
        cells = {c: t.strip() for c, t in zip(columns, row, strict=False)}
        if not cells.get(who):
            continue
        late = _of_row(cells, due, f"{name}, row {number}")
        label = cells[who]
        if roster is not None:
            participant = re.search(r"\d+$", label) if who == "identifier" else None
            students = roster.find(label, participant[0] if participant else "")
            if len(students) != 1:
                nobody.append(label)
                continue
            label = students[0].key
        chapter = re.sub(r"^(?=\d(L?)$)", "0", cells.get("chapter", "").upper())  # "3L" is "03L"
        if late is not None:
            found[label, chapter] = late
    return found, nobody


def note_lateness(
    submissions: Iterable[Submission],
    policy: LatePolicy | None = None,
    late_csv: Path | str | None = None,
    due: datetime | None = None,
    roster: Roster | None = None,
) -> list[str]:
    """Note in each submission how late it was and what that leaves of its points.

    A table of one's own goes before Moodle's worksheet, and both before LATE in a file name.

    Returns:
        the students of the table whom nobody is.

    Raises:
        RosterError: the table cannot be read.
    """
    own: dict[tuple[str, str], Lateness] = {}
    nobody: list[str] = []
    if roster is not None and roster.kind == "moodle worksheet":
        own, _ = read_lateness(roster.table, "the roster", due, roster)
    if late_csv is not None:
        path = Path(late_csv)
        table = read_csv(path, RosterError)
        given, nobody = read_lateness(table, path.name, due, roster)
        own |= given
    students = set()
    for s in submissions:
        students.add(s.student)
        marked = Lateness(None) if s.marked_late else None
        late = own.get((s.student, s.chapter), own.get((s.student, ""), marked))
        s.late = "" if late is None else str(late)
        s.factor = policy.factor(late) if policy is not None else 1.0
    if roster is None:
        nobody += [student for student, _ in own if student not in students]
    return nobody
