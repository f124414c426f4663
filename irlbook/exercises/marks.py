"""The instructor's sheet of written answers: what he types there is never lost.

A mark belongs to a student, an exercise and a line of its rubric. It is found again although a
spreadsheet has changed the sheet (separator, decimal comma, encoding, `6.6` for `06.6`, `7` for the
student `007`, another order, columns added), and it stays when the answer changes, when the student
or the chapter is missing from a run, and when its row is gone. What cannot be counted is named by
row, and the sheet is left as it is.

An instructor may also add a row of his own with the criterion `by hand`, the student and any
exercise: its points replace what the grader or the rubric would give, if the notebook can be read.
"""

from __future__ import annotations

import contextlib
import csv
import io
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from irlbook.errors import MarksError
from irlbook.exercises.model import Criterion, all_exercises
from irlbook.exercises.submissions import Result, Submission
from irlbook.exercises.tables import csv_text, decode_csv, safe_cell

__all__ = [
    "ABSENT",
    "BY_HAND",
    "CHANGED",
    "COLUMNS",
    "Cells",
    "MAX_TEXT",
    "Marks",
    "NO_ANSWER",
    "RESTORED",
    "Row",
    "Sheet",
    "Slot",
    "count",
    "merge",
    "number_of",
    "number_text",
    "place",
    "read_sheet",
    "sheet_text",
    "slots_of",
    "table",
    "typed_rows",
    "without_notebook",
    "written_path",
]

MAX_TEXT = 20_000  # characters of a written answer in the sheet
COLUMNS = ("student", "notebook", "exercise", "criterion", "max", "points", "note", "answer")
NO_ANSWER = "(no answer found)"
BY_HAND = "by hand"  # the criterion of a row that somebody added: points that replace all others
CHANGED = "the answer changed after it was marked: look again"
ABSENT = "not in this run, and kept"
RESTORED = "the row was missing from the sheet and was put back"
_EMPTIED = re.compile(r"the mark was [\d.]+ and is now empty")
_NEEDED = {"student", "exercise", "criterion", "points"}
_NAMED = 10  # rows that a message names

Cells = dict[str, str]


@dataclass(frozen=True)
class Slot:
    """The place of one mark: a line of a rubric for one student's notebook, or `BY_HAND`.

    `label` is the student's name in the folder, by which the sheet called him before there was a
    roster.
    """

    student: str
    notebook: str
    exercise: str
    criterion: str
    maximum: float
    answer: str
    label: str = ""

    @property
    def cells(self) -> Cells:
        """The cells that name it in the sheet."""
        names = (self.student, self.notebook, self.exercise, self.criterion)
        return dict(zip(COLUMNS, map(safe_cell, names), strict=False))


@dataclass(frozen=True)
class Row:
    """A row of the sheet, as it was read. `number` counts as a spreadsheet does (0: remembered)."""

    number: int
    cells: Cells

    @property
    def typed(self) -> bool:
        """Whether somebody has put something in: a mark, a note, a column of his own."""
        own = (text for name, text in self.cells.items() if name not in COLUMNS)
        notes = (note for note in _notes(self) if not _EMPTIED.fullmatch(note))
        return bool(self.cells.get("points")) or any(own) or any(notes)

    def __str__(self) -> str:
        student, exercise = self.cells.get("student", ""), self.cells.get("exercise", "")
        return f"row {self.number} ({student or 'no student'}, {exercise or 'no exercise'})"


@dataclass
class Sheet:
    """A sheet as it was found.

    Attributes:
        rows: its rows that are not empty.
        columns: names of the columns that are the instructor's own.
        delimiter, comma, encoding: how it was written, to write it so again; `comma` says that
            decimals have one.
    """

    rows: list[Row] = field(default_factory=list)
    columns: list[str] = field(default_factory=list)
    delimiter: str = ","
    comma: bool = False
    encoding: str = "utf-8-sig"  # a new one: Excel needs the mark to read names


@dataclass
class Marks:
    """Marks at their places.

    Attributes:
        rows: the row of each slot that has one.
        carried: rows with something typed that have no slot in this run.
        problems: why some marks cannot be counted.
        unplaced: the rows of these.
    """

    rows: dict[Slot, Row] = field(default_factory=dict)
    carried: list[Row] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    unplaced: list[Row] = field(default_factory=list)

    def refuse(self, problem: str, *rows: Row) -> None:
        """Note that marks cannot be counted, and why."""
        self.problems.append(problem)
        self.unplaced += rows


def written_path(out_csv: Path) -> Path:
    """Where the sheet of written answers lies: `grades.csv` -> `grades_written.csv`."""
    return out_csv.with_name(f"{out_csv.stem}_written.csv")


# ------------------------------------------------------------------------------------ reading


def _records(text: str, name: str) -> tuple[str, list[tuple[int, list[str]]]]:
    """The delimiter, and (number, cells) of each record that is not empty; the header first."""
    skipped = 0
    stated = re.match(r"sep=(.)\r?\n", text)
    if stated:
        text, skipped = text[stated.end() :], 1
    seen: list[str] = []
    for delimiter in (",", ";", "\t", "|"):
        try:
            rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))
        except csv.Error as error:
            raise MarksError(f"{name} cannot be read ({error}): save it as CSV again") from None
        found = [(n + skipped, row) for n, row in enumerate(rows, 1) if any(c.strip() for c in row)]
        if not found:
            return ",", []
        header = [_plain(cell).casefold() for cell in found[0][1]]
        if _NEEDED <= set(header):
            return delimiter, [(found[0][0], header), *found[1:]]
        seen = max(seen, header, key=len)
    missing = ", ".join(sorted(_NEEDED - set(seen)))
    raise MarksError(
        f"{name}: the first row must name the columns, and {missing} is not among them; nothing "
        "was graded and the sheet is as it was: put the names back and grade again"
    )


def read_sheet(path: Path) -> Sheet:
    """The sheet as a spreadsheet, an editor or `grade` has left it; empty if there is none.

    Raises:
        MarksError: it is not CSV, a column is missing or stands twice, or a row is too long.
    """
    if not path.is_file():
        return Sheet()
    text, encoding = decode_csv(path.read_bytes(), path.name, MarksError)
    delimiter, records = _records(text, path.name)
    sheet = Sheet(delimiter=delimiter, encoding=encoding)
    if not records:
        return sheet
    header = [name or f"column {n}" for n, name in enumerate(records[0][1], 1)]
    twice = [name for name, count in Counter(header).items() if count > 1]
    if twice:
        raise MarksError(f"{path.name}: the column {twice[0]!r} stands twice: rename one")
    sheet.columns = [name for name in header if name not in COLUMNS]
    too_long = [number for number, cells in records[1:] if any(cells[len(header) :])]
    if too_long:
        rows = ", ".join(map(str, too_long[:_NAMED]))
        raise MarksError(
            f"{path.name}: row {rows}: more cells than the first row has; nothing was graded and "
            "the sheet is as it was: put a text that holds the separator in quotes, and name every "
            "column"
        )
    for number, cells in records[1:]:
        padded = [*cells, *[""] * (len(header) - len(cells))]
        row = {n: c if n == "answer" else _plain(c) for n, c in zip(header, padded, strict=False)}
        sheet.rows.append(Row(number, row))
    sheet.columns = [c for c in sheet.columns if any(row.cells.get(c) for row in sheet.rows)]
    numbers = [row.cells.get(name, "") for row in sheet.rows for name in ("points", "max")]
    sheet.comma = delimiter == ";" or any("," in text for text in numbers)
    return sheet


def _plain(text: str) -> str:
    """A cell without the spaces and the apostrophe that spreadsheets put around it."""
    return text.strip().strip("\u00a0\ufeff").removeprefix("'").strip()


def _mended(text: str) -> str:
    """UTF-8 that was read as a Western encoding, read again as what it is."""
    if text.isascii():
        return text
    raw = bytearray()
    for character in text:
        try:
            raw += character.encode("cp1252")
        except UnicodeError:
            if ord(character) > 255:
                return text
            raw.append(ord(character))  # what Windows leaves as it is
    try:
        return raw.decode("utf-8")
    except UnicodeError:
        return text


def _key(text: str) -> str:
    """A text as it is compared: without the case, the spaces and the quotes that editors change."""
    text = unicodedata.normalize("NFKC", _mended(_plain(text))).casefold()
    text = text.translate({0x2018: "'", 0x2019: "'", 0x201C: '"', 0x201D: '"', 0x2013: "-"})
    return " ".join(text.split())


def _student_key(text: str) -> str:
    """The student as compared loosely: `007`, `7` and `7,0` are one."""
    key = _key(text)
    number = re.fullmatch(r"(\d+)(?:[.,]0*)?", key)
    return str(int(number[1])) if number and len(key) < 300 else key


def _rounded(text: str) -> str | None:
    """A long number as a spreadsheet shows it, `1.23457E+11` (also of that text itself)."""
    match = re.fullmatch(r"(\d+)(?:[.,](\d+))?e\+?(\d{1,2})", _key(text))
    if match:
        return f"{float(f'{match[1]}.{match[2] or 0}e{match[3]}'):.2E}"
    return f"{float(text):.2E}" if re.fullmatch(r"\d{9,40}", text) else None


def _exercises(text: str) -> set[str]:
    """The ids that a cell may stand for: `06.6`, `6.6`, `6,6`; `6.1` may have been `06.10`."""
    match = re.fullmatch(r"(\d{1,2})(L?)[.,](\d{1,2})", _plain(text).upper())
    if not match:
        return set()
    chapter, number = f"{int(match[1]):02d}{match[2]}", match[3]
    endings = (number, number.lstrip("0"), number.rstrip("0"), number + "0")
    return {f"{chapter}.{ending}" for ending in endings}


def number_of(text: str) -> float | None:
    """A mark as it is typed: `1.5`, `1,5`, `,5`; None for an empty cell.

    Raises:
        ValueError: it is not a number.
    """
    text = _plain(text)
    if not text:
        return None
    if not re.fullmatch(r"[+-]?(\d{1,9}([.,]\d*)?|[.,]\d+)(e[+-]?\d{1,2})?", text, re.IGNORECASE):
        raise ValueError
    return float(text.replace(",", "."))


# ------------------------------------------------------------------------------------ placing


def slots_of(submissions: Iterable[Submission]) -> list[Slot]:
    """Every place for a mark in these submissions, in the order of the sheet."""
    return [
        Slot(
            s.student,
            s.notebook,
            exercise.id,
            criterion.text,
            criterion.points,
            (s.texts.get(exercise.id) or NO_ANSWER)[:MAX_TEXT] if exercise.rubric else "",
            s.label,
        )
        for s in submissions
        for exercise in s.exercises
        for criterion in (*exercise.rubric, Criterion(exercise.points, BY_HAND))
    ]


class _Places:
    """Finds the slots that a row may belong to."""

    def __init__(self, slots: Sequence[Slot], rows: Sequence[Row]) -> None:
        self.slots: dict[str, list[Slot]] = defaultdict(list)
        self.loose: dict[tuple[str, str], list[Slot]] = defaultdict(list)
        self.spellings: dict[tuple[str, str], set[str]] = defaultdict(set)
        for slot in slots:
            criterion = _key(slot.criterion)
            self.slots[criterion].append(slot)
            for name in {_student_key(slot.student), _student_key(slot.label)} - {""}:
                self.loose[criterion, name].append(slot)
        for row in rows:
            student = row.cells["student"]
            key = (_key(row.cells["criterion"]), _student_key(student))
            self.spellings[key].add(student)

    def candidates(self, row: Row) -> list[Slot]:
        """The slots of a row: none, one, or several between which nothing decides."""
        student = row.cells["student"]
        key = (_key(row.cells["criterion"]), _student_key(student))
        found = self.loose.get(key, [])
        if not found and (rounded := _rounded(student)) is not None:
            found = [s for s in self.slots[key[0]] if _rounded(s.student) == rounded]
        exact = [s for s in found if _plain(s.student) == student]
        # `7` is the student 7 unless it stands for 007 too: each of them has its own spelling
        if exact and len(self.spellings[key]) >= len({s.student for s in found}):
            found = exact
        ids, notebook = _exercises(row.cells["exercise"]), _key(row.cells.get("notebook", ""))
        if key[0] == BY_HAND:  # any exercise has this criterion: one of another run has no slot
            found = [s for s in found if s.exercise in ids]
        elif len(found) > 1 and ids:
            found = [s for s in found if s.exercise in ids] or found
        if len(found) > 1:
            found = [s for s in found if _key(s.notebook) == notebook] or found
        if len(found) > 1:
            found = [s for s in found if _same_answer(row, s)] or found
        return found


def _same_answer(row: Row, slot: Slot) -> bool:
    """Whether the answer beside a mark is still the student's (yes, where none belongs to it)."""
    if slot.criterion == BY_HAND or "answer" not in row.cells:
        return True
    return _key(row.cells["answer"]) == _key(slot.answer)


def place(rows: Sequence[Row], slots: Sequence[Slot]) -> Marks:
    """Bring rows to their slots. What speaks against it becomes one of the `problems`."""
    places, marks = _Places(slots, rows), Marks()
    claims: dict[Slot, list[Row]] = defaultdict(list)
    for row in rows:
        found = places.candidates(row)
        ids = _exercises(row.cells["exercise"])
        if row.cells["points"] and not (row.cells["student"] and row.cells["criterion"]):
            marks.refuse(f"{row}: a mark without its student or its criterion", row)
        elif row.cells["points"] and _is_by_hand(row) and not _registered(ids):
            marks.refuse(f"{row}: points by hand need the exercise, like 3.2", row)
        elif not found and row.typed:
            marks.carried.append(row)
        elif len(found) == 1 and (not ids or found[0].exercise in ids):
            claims[found[0]].append(row)
        elif len(found) == 1 and row.typed:
            exercise = found[0].exercise
            marks.refuse(
                f"{row}: its criterion is of exercise {exercise} (were columns sorted apart?)", row
            )
        elif found and row.typed:
            names = " or ".join(sorted({f"{s.student}/{s.notebook}" for s in found})[:3])
            marks.refuse(f"{row}: it may belong to {names}; write the name in full", row)
    for slot, claimed in claims.items():
        try:
            marks.rows[slot] = _one_of(claimed, slot)
        except MarksError as error:
            marks.refuse(str(error), *claimed)
    return marks


def _is_by_hand(row: Row) -> bool:
    return _key(row.cells["criterion"]) == BY_HAND


def _registered(ids: set[str]) -> bool:
    """Whether the book has one of these exercises."""
    chapters = {id.partition(".")[0] for id in ids}
    return any(e.id in ids for chapter in chapters for e in all_exercises(chapter))


def _maximum(row: Row) -> float | None:
    """The points out of which a row was marked, if they can be read."""
    try:
        return number_of(row.cells.get("max", ""))
    except ValueError:
        return None


def _one_of(rows: list[Row], slot: Slot) -> Row:
    """The row that counts, of those that claim a slot."""
    values: dict[float, Row] = {}
    for row in rows:
        text = row.cells["points"]
        try:
            value = number_of(text)
        except ValueError:
            raise MarksError(f"{row}: {text!r} is not a number of points") from None
        before = _maximum(row)
        if value is not None and before is not None and abs(before - slot.maximum) > 1e-3:
            raise MarksError(
                f"{row}: it was marked out of {before:g}, and now counts {slot.maximum:g}: give "
                "--sheet as before, or change its points and its max"
            )
        if value is not None and not 0 <= value <= slot.maximum + 1e-9:
            raise MarksError(f"{row}: {text!r} is not between 0 and {slot.maximum:g}")
        if value is not None:
            values.setdefault(value, row)
    if len(values) > 1:
        names = ", ".join(f"{row} has {value:g}" for value, row in values.items())
        raise MarksError(f"one mark stands twice: {names}; delete one")
    first = next(iter(values.values()), rows[0])
    cells = dict(first.cells)
    for row in rows:  # a note in the other copy stays
        for name, text in row.cells.items():
            own = name == "note" or name not in COLUMNS
            if own and text and text not in cells.get(name, ""):
                cells[name] = "; ".join(filter(None, (cells.get(name, ""), text)))
    return Row(first.number, cells)


def _identity(row: Row) -> tuple[str, str, str]:
    cells = row.cells
    criterion, notebook = _key(cells["criterion"]), _key(cells.get("notebook", ""))
    if _is_by_hand(row):  # which alone does not tell the exercise
        criterion += min(_exercises(cells["exercise"]), default="")
    return _student_key(cells["student"]), criterion, notebook


def merge(sheet: Sheet, remembered: Sequence[Mapping[str, str]], slots: Sequence[Slot]) -> Marks:
    """The marks of a sheet, and those of the last run whose rows are gone from it.

    Args:
        sheet: as it was read.
        remembered: what `typed_rows` gave at the end of the last run.
        slots: the places of this run.

    Raises:
        MarksError: a mark cannot be counted or placed; the rows are named.
    """
    marks = place([_current(row) for row in sheet.rows], slots)
    if marks.problems:
        shown = "; ".join(marks.problems[:_NAMED])
        more = f"; and {len(marks.problems) - _NAMED} more" if len(marks.problems) > _NAMED else ""
        raise MarksError(
            f"in the sheet of written answers, {shown}{more}. Nothing was written, and the sheet "
            "is as it was: mend these rows and grade again"
        )
    whole = [Row(0, {**dict.fromkeys(_NEEDED, ""), **cells}) for cells in remembered]
    before = place([_current(row) for row in whole], slots)
    for slot, old in before.rows.items():
        now = marks.rows.get(slot)
        marks.rows[slot] = _noted(old, RESTORED) if now is None else _compared(now, old)
    here = {_identity(row): _current(row) for row in sheet.rows}
    kept = {_identity(row) for row in marks.carried}
    placed = {_identity(row): slot for slot, row in marks.rows.items()}
    for old in (*before.carried, *before.unplaced):
        key = _identity(old)
        if key not in here:
            marks.carried.append(_noted(old, RESTORED))
        elif key in placed and key not in kept:  # it was out of other points, and has no slot now
            marks.rows[placed[key]] = _compared(marks.rows[placed[key]], old)
        elif key not in kept and not number_text(here[key].cells["points"]):
            marks.carried.append(_compared(here[key], old))
    for slot, row in marks.rows.items():
        if row.cells["points"] and not _same_answer(row, slot):
            marks.rows[slot] = _noted(row, CHANGED)
    return marks


def _notes(row: Row) -> list[str]:
    return [note for note in map(str.strip, row.cells.get("note", "").split(";")) if note]


def _with_notes(row: Row, notes: Iterable[str]) -> Row:
    return Row(row.number, {**row.cells, "note": "; ".join(notes)})


def _noted(row: Row, note: str) -> Row:
    return _with_notes(row, dict.fromkeys([*_notes(row), note]))


def _current(row: Row) -> Row:
    """A row without the notes that were about the run before."""
    marked = bool(row.cells["points"])
    old = (ABSENT, RESTORED)
    notes = [n for n in _notes(row) if n not in old and not (marked and _EMPTIED.fullmatch(n))]
    return _with_notes(row, notes)


def _compared(row: Row, old: Row) -> Row:
    """A row beside what it was: an emptied mark is noted, and a new mark has looked again."""
    now, then = number_text(row.cells["points"]), number_text(old.cells["points"])
    if then and not now:
        return _noted(row, f"the mark was {then} and is now empty")
    if now != then and CHANGED in _notes(old):
        return _with_notes(row, [n for n in _notes(row) if n != CHANGED])
    return row


def number_text(text: str) -> str:
    """A mark in one way of writing (text that is no number stays)."""
    try:
        value = number_of(text)
    except ValueError:
        return text
    return "" if value is None else f"{value:.12g}"


# ------------------------------------------------------------------------------------ writing


def count(submissions: Iterable[Submission], marks: Marks) -> int:
    """Give the submissions their marks; returns how many wait for a second look."""
    flagged = 0
    by_place: dict[tuple[str, str, str], list[Row]] = defaultdict(list)
    by_hand: dict[tuple[str, str, str], float | None] = {}
    for slot, row in marks.rows.items():
        place = (slot.student, slot.notebook, slot.exercise)
        if slot.criterion == BY_HAND:
            by_hand[place] = number_of(row.cells["points"])
        else:
            by_place[place].append(row)
    for s in submissions:
        for exercise in s.exercises:
            place = (s.student, s.notebook, exercise.id)
            rows = by_place.get(place, [])
            values = [v for row in rows if (v := number_of(row.cells["points"])) is not None]
            if any(CHANGED in row.cells.get("note", "") for row in rows):
                flagged += 1
                s.say(f"the written answer {exercise.id} changed after it was marked: look again")
            if exercise.rubric and len(values) == len(exercise.rubric):
                # of hundredths the sum is not exact
                s.results[exercise.id] = Result(round(sum(values), 6), "read")
            if (given := by_hand.get(place)) is not None:  # what a check said no longer counts
                note = "the points were given by hand"
                s.results[exercise.id] = Result(given, "read", note=note)
    return flagged


def without_notebook(carried: Iterable[Row], submissions: Iterable[Submission]) -> list[str]:
    """The points by hand that wait for a notebook: their exercise is graded, and has no slot."""
    graded = {e.id for s in submissions for e in s.exercises}
    return [
        f"{row.cells['student']} {row.cells['exercise']}"
        for row in carried
        if _is_by_hand(row) and row.cells["points"] and graded & _exercises(row.cells["exercise"])
    ]


def table(marks: Marks, slots: Sequence[Slot]) -> list[Cells]:
    """The rows of the sheet to write: every slot, then what has no place in this run."""
    rows = []
    for slot in slots:
        if slot.criterion == BY_HAND and slot not in marks.rows:
            continue
        typed = marks.rows[slot].cells if slot in marks.rows else {"points": ""}
        fixed = {**slot.cells, "max": f"{slot.maximum:g}", "answer": slot.answer}
        rows.append({**typed, **fixed, "points": number_text(typed["points"])})
    return rows + [_noted(row, ABSENT).cells for row in marks.carried]


def typed_rows(rows: Iterable[Cells]) -> list[Cells]:
    """The rows in which somebody has typed something: what the next run must find again."""
    return [cells for cells in rows if Row(0, cells).typed]


def sheet_text(sheet: Sheet, rows: Sequence[Cells]) -> str:
    """The sheet as CSV, in the way in which it was found."""
    columns = list(COLUMNS)
    for cells in rows:
        columns += [name for name in cells if name not in columns]

    def cell(name: str, text: str) -> str:
        if sheet.comma and name in ("max", "points"):
            with contextlib.suppress(ValueError):
                number_of(text)
                return text.replace(".", ",")
        return text

    body = [[cell(name, cells.get(name, "")) for name in columns] for cells in rows]
    return csv_text([columns, *body], sheet.delimiter)
