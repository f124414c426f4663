"""The list of a class: who is in it, and whose each submission is.

Understands the gradebook that Canvas exports (Student, ID, SIS User ID, SIS Login ID, Section), the
grading worksheet (Identifier, Full name, Email address, ...), the gradebook and the list of
participants of Moodle (First name, Last name, ID number, Email address), and a plain table with one
of the columns of `IDS` or `NAMES`.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from irlbook.errors import RosterError
from irlbook.exercises.submissions import MISSING, Submission
from irlbook.exercises.tables import Table, read_csv

__all__ = ["IDS", "NAMES", "Roster", "Student", "assign", "read_roster", "squeezed"]

# columns that tell students apart; the first that has something names the student in our tables
IDS = (
    *("sis login id", "username", "login", "user", "email address", "email", "e-mail"),
    *("sis user id", "id number", "student id", "id", "identifier", "student", "folder"),
)
NAMES = ("full name", "name", "student")
_SURNAMES = ("last name", "surname")
_SECTIONS = ("section", "group", "groups")


@dataclass(frozen=True)
class Student:
    """One student of a roster.

    Attributes:
        key: what our tables call the student; nobody else has it.
        name, section: for people to read.
        ids: all that the roster has to tell the student by, in lower case.
        numbers: the number of the learning platform, as it stands in names of downloaded files.
        names: the name in the ways in which files are named, squeezed.
        row: the place in the roster's table.
    """

    key: str
    name: str
    section: str
    ids: frozenset[str]
    numbers: frozenset[str]
    names: frozenset[str]
    row: int


@dataclass
class Roster:
    """A class. `table` is the file as it was found, and `kind` says whose columns it has."""

    kind: str
    table: Table
    students: list[Student]
    _by: dict[str, dict[str, list[Student]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._by = {way: defaultdict(list) for way in ("numbers", "ids", "loose", "names")}
        for student in self.students:
            for way in ("numbers", "ids", "names"):
                for text in getattr(student, way):
                    self._by[way][text].append(student)
            for text in {_loose(id) for id in student.ids}:
                self._by["loose"][text].append(student)

    def find(self, who: str, number: str = "") -> list[Student]:
        """The students that a label may mean: none, one, or several between which nothing decides.

        Args:
            who: a login, an address, an ID or a name, in any order and any letter case.
            number: the platform's own number, which decides where the roster has it.
        """
        text = who.strip().casefold()
        for way, label in (
            ("numbers", number),
            ("ids", text),
            ("loose", _loose(text)),
            ("names", squeezed(who)),
            ("names", squeezed(who, plain=True)),
        ):
            found = self._by[way].get(label, []) if label else []
            if found:
                return found
        return []


def squeezed(name: str, plain: bool = False) -> str:
    """A name as a file name has it: small letters and digits alone (`plain`: without accents)."""
    text = unicodedata.normalize("NFKD" if plain else "NFKC", name).casefold()
    return "".join(c for c in text if c.isalnum())


def _loose(text: str) -> str:
    """An ID as a spreadsheet may have left it (`007` as `7`), or an address without its domain."""
    number = re.fullmatch(r"0*(\d{1,40})([.,]0*)?", text)
    return number[1] if number else text.split("@")[0]


def _names(cells: dict[str, str]) -> tuple[str, set[str]]:
    """The name to show, and the name in every order, squeezed."""
    first = cells.get("first name", "")
    last = next((cells[c] for c in _SURNAMES if cells.get(c)), "")
    shown = next((cells[c] for c in NAMES if cells.get(c)), f"{first} {last}".strip())
    if "," in shown and not first:  # "Doe, Jane" of a sortable name
        last, first = (part.strip() for part in shown.split(",", 1))
        shown = f"{first} {last}".strip()
    orders = {shown, f"{first} {last}", f"{last} {first}"}
    return shown, {squeezed(o, plain) for o in orders for plain in (False, True)} - {""}


def _kind(header: set[str]) -> str:
    if "student" in header and "id" in header and header & {"sis login id", "sis user id"}:
        return "canvas"
    if "identifier" in header and "grade" in header:
        return "moodle worksheet"
    return "table"


def read_roster(path: Path | str) -> Roster:
    """The class of a file.

    Raises:
        RosterError: there is no such file, no column that tells students apart, or two rows are the
            same student; the message names them.
    """
    path = Path(path)
    table = read_csv(path, RosterError)
    columns = [name.strip().casefold() for name in table.header]
    kind = _kind(set(columns))
    names = {"first name", *_SURNAMES, *NAMES}
    if not set(columns) & {*IDS, *names}:
        raise RosterError(
            f"{path.name}: no column tells the students apart; it needs one of "
            f"{', '.join(dict.fromkeys((*IDS, *NAMES)))}, or first name and last name"
        )
    students: list[Student] = []
    taken: dict[str, int] = {}
    for number, row in enumerate(table.rows):
        cells = {c: t.strip() for c, t in zip(columns, row, strict=False) if c}
        # rows of Canvas's own: "Points Possible", "Manual Posting"
        if not any(cells.values()) or (kind == "canvas" and not cells.get("id")):
            continue
        name, orders = _names(cells)
        ids = [cells[c] for c in IDS if cells.get(c)]
        key = next(iter(ids), name)
        if not key:
            raise RosterError(f"{path.name}, row {number + 2}: nothing says who this is")
        if key.casefold() in taken:
            raise RosterError(
                f"{path.name}: rows {taken[key.casefold()]} and {number + 2} are both {key!r}: "
                "delete one, or add a column that tells them apart (an ID or an address)"
            )
        taken[key.casefold()] = number + 2
        participant = re.search(r"\d+$", cells.get("identifier", ""))
        numbers = {cells.get("id", "") if kind == "canvas" else ""}
        numbers |= {participant[0]} if participant else set()
        section = next((cells[c] for c in _SECTIONS if cells.get(c)), "")
        students.append(
            Student(
                key,
                name,
                section,
                frozenset(id.casefold() for id in ids),
                frozenset(numbers - {""}),
                frozenset(orders),
                number,
            )
        )
    if not students:
        raise RosterError(f"{path.name}: there is no student in it")
    return Roster(kind, table, students)


def assign(roster: Roster, submissions: Iterable[Submission]) -> tuple[list[Submission], list[str]]:
    """Give each submission to its student, and a row to each student who handed in nothing.

    Returns:
        all submissions, those of the roster's students in its order and unknown ones last, and
        the labels of the unknown.
    """
    by_student: dict[str, list[Submission]] = defaultdict(list)
    unknown: list[Submission] = []
    for submission in submissions:
        found = roster.find(submission.who or submission.student, submission.number)
        if len(found) == 1:
            (student,) = found
            submission.label = submission.student
            submission.student, submission.name = student.key, student.name
            submission.section = student.section
            by_student[student.key].append(submission)
        else:
            names = " or ".join(student.key for student in found[:4])
            submission.say(f"may be {names} of the roster" if found else "not in the roster")
            unknown.append(submission)
    rows: list[Submission] = []
    for student in roster.students:
        missing = Submission(
            student.key,
            "",
            None,
            MISSING,
            name=student.name,
            section=student.section,
        )
        rows += by_student.get(student.key) or [missing]
    return rows + unknown, list(dict.fromkeys(s.student for s in unknown))
