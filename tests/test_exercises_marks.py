"""Marks that an instructor has typed: no spreadsheet and no absence loses one."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import nbformat
import pytest

from irlbook.errors import MarksError
from irlbook.exercises import feedback, grading, marks, model, tables
from irlbook.exercises.model import Criterion, Exercise
from irlbook.exercises.statistics import class_statistics
from irlbook.exercises.submissions import Result

grade = partial(grading.grade, allow_root=True, progress=False)
STUDENTS = ("007", "ann", "Müller", "=x", "123456789012")
HINTS = ("a", "b", "c")


def written(id: str, *criteria: str) -> Exercise:
    return Exercise(
        id=id,
        title=f"Why {id}?",
        kind="written",
        points=2 * len(criteria),
        difficulty=1,
        minutes=5,
        importance=3,
        goal="You can say why.",
        hints=HINTS,
        rubric=tuple(Criterion(2, text) for text in criteria),
    )


CHAPTERS = {
    "91": [
        written("91.6", "names the “price” – in full; no less", "says when"),
        written("91.10", "draws\tit"),
    ],
    "92": [written("92.1", "counts")],
}


@pytest.fixture
def course(monkeypatch, tmp_path):
    """Five students, two chapters, every mark typed: (submissions, table, what was typed)."""
    exercises = [e for chapter in CHAPTERS.values() for e in chapter]
    monkeypatch.setattr(model, "_REGISTRY", {e.id: e for e in exercises})
    folder = tmp_path / "submissions"
    for student in STUDENTS:
        for chapter, own in CHAPTERS.items():
            hand_in(folder / student / f"{chapter}_demo.ipynb", own, student)
    out = tmp_path / "grades.csv"
    grade(folder, out)
    rows = read(out)
    typed = {}
    for number, row in enumerate(rows):
        row["points"] = ("0.5", "1", "2", "1.25")[number % 4]
        typed[identity(row)] = float(row["points"])
    write(out, rows)
    grade(folder, out)
    assert held(out) == typed
    return folder, out, typed


def hand_in(path: Path, exercises: list[Exercise], text: str) -> None:
    new = nbformat.v4
    cells = [new.new_markdown_cell(f"<!-- answer {e.id} -->\nBecause, {text}") for e in exercises]
    notebook = new.new_notebook(cells=cells)
    notebook.metadata["irlbook"] = {"exercises": [e.id for e in exercises]}
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)


def sheet_of(out: Path) -> Path:
    return marks.written_path(out)


def read(out: Path) -> list[dict[str, str]]:
    text = sheet_of(out).read_text(encoding="utf-8-sig")
    delimiter = max(",;\t", key=text.splitlines()[0].count)
    return list(csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter))


def identity(row: dict[str, str]) -> tuple[str, str]:
    return row["student"], row["criterion"]


def held(out: Path) -> dict[tuple[str, str], float]:
    """The marks that stand in the sheet."""
    return {
        identity(row): float(row["points"].replace(",", ".")) for row in read(out) if row["points"]
    }


def as_csv(rows: list[dict[str, str]], **dialect) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), lineterminator="\r\n", **dialect)
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def write(out: Path, rows: list[dict[str, str]], encoding: str = "utf-8", **dialect) -> None:
    sheet_of(out).write_bytes(as_csv(rows, **dialect).encode(encoding))


def changed(**columns: Callable[[str], str]) -> Callable[[Path], None]:
    def change(out: Path) -> None:
        rows = read(out)
        write(out, [{n: columns.get(n, str)(t) for n, t in row.items()} for row in rows])

    return change


def semicolons(out: Path) -> None:
    rows = read(out)
    for row in rows:
        row["points"], row["max"] = row["points"].replace(".", ","), "2,0"
        row["exercise"] = row["exercise"].replace(".", ",")
    write(out, rows, "utf-8-sig", delimiter=";")


def text_of(change: Callable[[str], bytes]) -> Callable[[Path], None]:
    def apply(out: Path) -> None:
        sheet_of(out).write_bytes(change(as_csv(read(out))))

    return apply


def without_rows(out: Path) -> None:
    write(out, read(out)[::3])


def with_more_columns(out: Path) -> None:
    rows = [{"reader": "Zoë", **row, "remark": f"see {n}"} for n, row in enumerate(read(out))]
    write(out, [dict(reversed(row.items())) for row in rows])


def doubled(out: Path) -> None:
    rows = read(out)
    write(out, rows + [{**row, "points": ""} for row in rows[:4]] + rows[4:6])


def number(text: str) -> str:
    """A text as a spreadsheet that takes it for a number gives it back."""
    if text == "123456789012":
        return "1.23457E+11"
    return str(int(text)) if text.isdigit() else text


# what happens to the sheet -> a function that does it
SPREADSHEETS = {
    "6.6 for 06.6, and 91.1 for 91.10": changed(exercise=lambda t: f"{float(t):g}"),
    "two decimals": changed(
        exercise=lambda t: f"{float(t):.2f}", points=lambda t: f"{float(t):.4f}"
    ),
    "a date for an exercise": changed(exercise=lambda t: "91. Jun"),
    "007 is 7, and a long number is rounded": changed(student=number),
    "student numbers with decimals": changed(student=lambda t: "7,0" if t == "007" else t),
    "0,5 in quotes": changed(points=lambda t: t.replace(".", ",")),
    ",5 and trailing commas": changed(points=lambda t: t.replace("0.", ",")),
    "spaces and no-break spaces": changed(
        points=lambda t: f"\u00a0{t} ", student=lambda t: f" {t} ", criterion=lambda t: f"{t}  "
    ),
    "apostrophes before numbers": changed(points=lambda t: f"'{t}", exercise=lambda t: f"'{t}"),
    "other quotes, dashes and spaces": changed(
        criterion=lambda t: t.replace("“", '"').replace("”", '"').replace("–", "-").expandtabs(1)
    ),
    "capitals": changed(student=str.upper, notebook=str.upper, criterion=str.upper),
    "the notebook's name gone": changed(notebook=lambda t: ""),
    "a German spreadsheet": semicolons,
    "tabs": lambda out: write(out, read(out), delimiter="\t"),
    "everything quoted": lambda out: write(out, read(out), quoting=csv.QUOTE_ALL),
    "a byte order mark": lambda out: write(out, read(out), "utf-8-sig"),
    "UTF-16": lambda out: write(out, read(out), "utf-16", delimiter="\t"),
    "a Western encoding": lambda out: write(out, read(out), "cp1252"),
    "UTF-8 read as Western": text_of(
        lambda t: "".join(
            chr(b) if b in b"\x81\x8d\x8f\x90\x9d" else bytes([b]).decode("cp1252")
            for b in t.encode()
        ).encode()
    ),
    "line ends of Unix": text_of(lambda t: t.replace("\r\n", "\n").encode()),
    "line ends of an old Mac": text_of(lambda t: t.replace("\r\n", "\r").encode()),
    "empty rows and trailing separators": text_of(
        lambda t: ("\r\n" + t.replace("\r\n", ",,\r\n") + ",,,\r\n" * 3).encode()
    ),
    "a first line that names the separator": text_of(lambda t: ("sep=,\r\n" + t).encode()),
    "another order of rows": lambda out: write(out, sorted(read(out), key=str)[::-1]),
    "columns of one's own, in another order": with_more_columns,
    "names of columns in capitals": text_of(lambda t: t.replace("points", " Points ", 1).encode()),
    "rows filtered away": without_rows,
    "all rows gone": lambda out: write(out, read(out)[:1]),
    "rows twice": doubled,
    "answers cut": changed(answer=lambda t: t[:3]),
    "no column of answers": lambda out: write(
        out, [{n: t for n, t in row.items() if n != "answer"} for row in read(out)]
    ),
    "the sheet deleted": lambda out: sheet_of(out).unlink(),
    "the sheet empty": lambda out: sheet_of(out).write_bytes(b""),
}


@pytest.mark.parametrize("name", SPREADSHEETS)
def test_no_mark_is_lost_by_a_spreadsheet(course, name):
    folder, out, typed = course
    SPREADSHEETS[name](out)
    for _ in range(2):  # what was written is read as well
        summary = grade(folder, out)
        assert held(out) == typed and summary.carried == []
        assert all(s.status == "graded" for s in summary.submissions)
        assert sum(s.points for s in summary.submissions) == sum(typed.values())


def remove(*places: str) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        for place in places:
            shutil.rmtree(folder / place) if "." not in place else (folder / place).unlink()

    return apply


ABSENCES = {
    "one student": (remove("ann"), {}),
    "the student with zeros": (remove("007"), {}),
    "everybody but one": (remove("007", "ann", "=x", "123456789012"), {}),
    "one notebook": (remove("ann/92_demo.ipynb"), {}),
    "the other chapter": (lambda folder: None, {"chapters": ["92"]}),
    "a chapter that nobody handed in": (lambda folder: None, {"chapters": ["93"]}),
    "a damaged notebook": (lambda f: (f / "ann" / "91_demo.ipynb").write_text("{"), {}),
    "a renamed notebook": (
        lambda f: (f / "ann" / "91_demo.ipynb").rename(f / "ann" / "91_mine.ipynb"),
        {},
    ),
}


@pytest.mark.parametrize("name", ABSENCES)
def test_no_mark_is_lost_by_an_absence(course, name):
    folder, out, typed = course
    whole = folder.with_name("whole")
    shutil.copytree(folder, whole)
    change, options = ABSENCES[name]
    change(folder)
    for _ in range(2):
        grade(folder, out, **options)
        assert held(out) == typed
    for change_sheet in (changed(student=number), without_rows, semicolons):
        change_sheet(out)
        grade(folder, out, **options)
        back = grade(whole, out)
        assert held(out) == typed and back.carried == []
        assert all(s.status == "graded" for s in back.submissions)


def test_the_summary_names_the_marks_that_are_not_counted(course):
    folder, out, _ = course
    remove("ann")(folder)
    summary = grade(folder, out)
    assert "4 marks not in this run, kept in the sheet: ann" in str(summary)
    assert {r["note"] for r in read(out) if r["student"] == "ann"} == {marks.ABSENT}


REFUSED = {
    "not a number": (lambda rows: rows[0].update(points="good"), r"row 2 \(007, 91.6\).*'good'"),
    "a date": (lambda rows: rows[3].update(points="01. Mai"), r"row 5 \(007, 92.1\).*'01. Mai'"),
    "infinite": (lambda rows: rows[0].update(points="inf"), "row 2"),
    "above the maximum": (lambda rows: rows[1].update(points="7"), r"row 3 .*between 0 and 2"),
    "negative": (lambda rows: rows[1].update(points="-1"), "row 3"),
    "two marks for one place": (
        lambda rows: rows.append({**rows[0], "points": "1.75"}),
        "twice.*row 2.*has 0.5.*row 22.*has 1.75",
    ),
    "names only in the first of merged cells": (
        lambda rows: rows[1].update(student=""),
        r"row 3 \(no student, 91.6\): a mark without its student",
    ),
    "a row of sums": (
        lambda rows: rows.append({**dict.fromkeys(rows[0], ""), "points": "23.75"}),
        r"row 22 \(no student, no exercise\)",
    ),
    "a column is gone": (lambda rows: [r.pop("criterion") for r in rows], "criterion is not"),
    "a column is renamed": (
        lambda rows: [r.update(Punkte=r.pop("points")) for r in rows],
        "points is not among",
    ),
    "columns sorted apart": (
        lambda rows: rows[0].update(exercise="92.1"),
        "row 2.*is of exercise 91.6",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_counted_is_named_and_nothing_is_written(course, name):
    folder, out, _ = course
    rows = read(out)
    change, says = REFUSED[name]
    change(rows)
    write(out, rows)
    before = {p: p.read_bytes() for p in (out, sheet_of(out))}
    with pytest.raises(MarksError, match=says):
        grade(folder, out)
    assert {p: p.read_bytes() for p in before} == before


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"PK\x03\x04rest", "save it as CSV"),
        (b"student,exercise,criterion,points\r\nann,91.6,says when,0,5\r\n", "row 2: more cells"),
        (b"student,exercise,criterion,points,points\r\nann,91.6,says when,1,2\r\n", "twice"),
    ],
)
def test_a_file_that_is_no_sheet_is_refused(course, raw, says):
    folder, out, _ = course
    sheet_of(out).write_bytes(raw)
    with pytest.raises(MarksError, match=says):
        grade(folder, out)
    assert sheet_of(out).read_bytes() == raw


def test_two_students_that_a_spreadsheet_makes_one_are_told_apart_or_named(course):
    folder, out, _ = course
    for chapter, own in CHAPTERS.items():
        hand_in(folder / "7" / f"{chapter}_demo.ipynb", own, "7")
    grade(folder, out)
    rows = read(out)
    for row in rows:
        row["points"] = "2" if row["student"] == "7" else row["points"]
    write(out, rows)
    grade(folder, out)
    typed = held(out)
    changed(student=number)(out)  # both are 7 now: the answers tell
    grade(folder, out)
    assert held(out) == typed
    changed(student=number, answer=lambda t: "")(out)
    with pytest.raises(MarksError, match="may belong to 007/91_demo.ipynb or 7/91_demo.ipynb"):
        grade(folder, out)


def test_a_mark_stays_when_the_answer_changes_until_somebody_has_looked_again(course):
    folder, out, typed = course
    hand_in(folder / "ann" / "92_demo.ipynb", CHAPTERS["92"], "or not?")
    for _ in range(2):
        summary = grade(folder, out)
        (row,) = (r for r in read(out) if identity(r) == ("ann", "counts"))
        assert held(out) == typed and summary.look_again == 1
        assert row["note"] == marks.CHANGED and row["answer"].endswith("or not?")
        (ann,) = (s for s in summary.submissions if s.student == "ann" and s.chapter == "92")
        assert "92.1 changed after it was marked" in ann.message
    rows = read(out)
    for row in rows:
        row["points"] = "0.75" if identity(row) == ("ann", "counts") else row["points"]
    write(out, rows)
    summary = grade(folder, out)
    assert summary.look_again == 0 and held(out)["ann", "counts"] == 0.75
    hand_in(folder / "ann" / "92_demo.ipynb", CHAPTERS["92"], "once more")
    grade(folder, out)
    changed(note=lambda t: "")(out)  # looked at, and the mark stays
    assert grade(folder, out).look_again == 0 and held(out)["ann", "counts"] == 0.75


def test_an_emptied_mark_does_not_count_and_is_remembered(course):
    folder, out, typed = course
    changed(points=lambda t: "")(out)
    for _ in range(2):
        summary = grade(folder, out)
        assert held(out) == {} and all(s.status == "needs manual" for s in summary.submissions)
    for row in read(out):
        assert row["note"] == f"the mark was {typed[identity(row)]:g} and is now empty"
    rows = read(out)
    write(out, [{**row, "points": "1"} for row in rows])
    grade(folder, out)
    assert {row["note"] for row in read(out)} == {""}


def test_an_emptied_mark_of_an_absent_student_is_told_once_and_then_goes(course):
    folder, out, typed = course
    remove("ann")(folder)
    grade(folder, out)
    changed(points=lambda t: "")(out)
    grade(folder, out)
    notes = {identity(row): row["note"] for row in read(out) if row["student"] == "ann"}
    assert len(notes) == 4
    for key, note in notes.items():
        assert note == f"the mark was {typed[key]:g} and is now empty; {marks.ABSENT}"
    grade(folder, out)
    assert "ann" not in {row["student"] for row in read(out)}


def test_notes_and_columns_of_ones_own_stay(course):
    folder, out, _ = course
    with_more_columns(out)
    changed(note=lambda t: "nice")(out)
    remove("ann")(folder)
    for _ in range(2):
        grade(folder, out)
        rows = read(out)
        assert {row["reader"] for row in rows} == {"Zoë"}
        assert {row["remark"] for row in rows} == {f"see {n}" for n in range(20)}
        assert {row["note"] for row in rows} == {"nice", f"nice; {marks.ABSENT}"}


def test_the_sheet_goes_back_in_the_way_in_which_it_came(course):
    folder, out, _ = course
    semicolons(out)
    remove("ann")(folder)
    grade(folder, out)
    raw = sheet_of(out).read_bytes()
    assert raw.startswith(b"\xef\xbb\xbfstudent;notebook;") and b";2;0,5;" in raw


def test_what_was_there_before_lies_beside_it(course):
    folder, out, _ = course
    old = sheet_of(out).read_bytes()
    remove("ann")(folder)
    grade(folder, out)
    copies = sorted(out.parent.glob("grades_written.csv.*.bak"))
    assert old in [p.read_bytes() for p in copies]
    grade(folder, out)  # nothing changes, nothing is copied
    assert sorted(out.parent.glob("grades_written.csv.*.bak")) == copies
    for number in range(40):
        tables.write_with_copy(out, str(number))
    assert len(list(out.parent.glob("grades.csv.*.bak"))) == tables.KEPT_COPIES


def test_a_mark_typed_while_the_grader_runs_is_read(course, monkeypatch):
    folder, out, typed = course
    sheet_of(out).unlink()
    out.with_name("grades.csv.journal").unlink()
    grade(folder, out)
    rows = read(out)

    def type_on(*args, **kwargs):
        write(out, [{**row, "points": f"{typed[identity(row)]}"} for row in rows])
        return Result(None, "manual")

    monkeypatch.setattr(grading, "grade_exercise", type_on)
    grade(folder, out)
    assert held(out) == typed


def test_a_sheet_that_is_open_elsewhere_is_left_and_the_results_are_kept(course, monkeypatch):
    folder, out, _ = course
    remove("ann")(folder)
    before = sheet_of(out).read_bytes()

    def refuse(path, text, encoding="utf-8"):
        raise PermissionError(13, "in use", str(path))

    monkeypatch.setattr(grading, "write_with_copy", refuse)
    with pytest.raises(MarksError, match="close it in the spreadsheet"):
        grade(folder, out)
    assert sheet_of(out).read_bytes() == before
    journal = out.with_name("grades.csv.journal").read_text(encoding="utf-8").splitlines()
    assert len(json.loads(journal[-1])["typed"]) == 20


def test_a_full_disk_costs_nothing_that_was_typed_and_is_named(course, monkeypatch):
    folder, out, _ = course
    remove("ann")(folder)
    before = sheet_of(out).read_bytes()
    copies = set(out.parent.glob("*.bak"))
    sync = os.fsync

    def full(file):  # what is being written has another name until it is whole
        if list(out.parent.glob(".*_written*.tmp")):
            raise OSError(28, "No space left on device")
        sync(file)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(MarksError, match=r"grades_written.csv.*No space left.*results are kept"):
        grade(folder, out)
    assert sheet_of(out).read_bytes() == before
    new = set(out.parent.glob("*.bak")) - copies
    assert not any("_written" in path.name for path in new), "half a copy is no copy"
    assert not list(out.parent.glob(".*.tmp"))


class Killed(BaseException):
    """What no code catches: the process ends here."""


@pytest.mark.parametrize("writes", range(1, 7))
def test_no_mark_is_lost_when_the_grader_is_killed_while_it_writes(course, monkeypatch, writes):
    folder, out, typed = course
    remove("ann")(folder)
    semicolons(out)
    add_by_hand(out, "007", "91.6", "1")
    replaced, calls = os.replace, []

    def kill(*args):
        calls.append(args)
        if len(calls) == writes:
            raise Killed
        replaced(*args)

    monkeypatch.setattr(os, "replace", kill)
    with pytest.raises(Killed):
        grade(folder, out)
    monkeypatch.setattr(os, "replace", replaced)
    summary = grade(folder, out)
    assert held(out) == {**typed, ("007", "by hand"): 1.0}
    assert results_of(summary, "007")["91.6"].points == 1


def add_by_hand(out: Path, student: str, exercise: str, points: str, **more: str) -> None:
    row = {"student": student, "exercise": exercise, "criterion": "By hand", "points": points}
    rows = read(out)
    write(out, [*rows, {**dict.fromkeys(rows[0], ""), "notebook": "", **row, **more}])


def results_of(summary, student: str) -> dict[str, Result]:
    return {
        id: r for s in summary.submissions if s.student == student for id, r in s.results.items()
    }


def test_points_that_are_given_by_hand_replace_those_of_the_rubric(course):
    folder, out, typed = course
    add_by_hand(out, "ann", "91.6", "3,5", note="complaint of 3 December", answer="copied along")
    add_by_hand(out, "ann", "92.1", "1")
    for _ in range(2):
        got = results_of(grade(folder, out), "ann")
        assert (got["91.6"].points, got["92.1"].points) == (3.5, 1) and got["91.6"].status == "read"
        assert got["91.10"].points == typed["ann", "draws\tit"]
        assert got["91.6"] == Result(3.5, "read", note="the points were given by hand")
    rows = {r["exercise"]: r for r in read(out) if r["criterion"] == marks.BY_HAND}
    assert len(read(out)) == 22 and rows["91.6"]["max"] == "4"
    assert rows["91.6"]["note"] == "complaint of 3 December"
    assert results_of(grade(folder, out), "007")["91.6"].points == 1.5  # nobody else's


def test_points_that_are_given_by_hand_outlive_their_row_and_their_student(course, tmp_path):
    folder, out, _ = course
    add_by_hand(out, "ann", "91.6", "3.5")
    add_by_hand(out, "ann", "92.1", "1")
    grade(folder, out)
    (folder / "ann").rename(tmp_path / "ann")
    rows = [row for row in read(out) if row["exercise"] != "91.6" or row["criterion"] != "by hand"]
    write(out, rows)
    assert grade(folder, out).carried.count("ann") == 6
    (tmp_path / "ann").rename(folder / "ann")
    got = results_of(grade(folder, out), "ann")
    assert (got["91.6"].points, got["92.1"].points) == (3.5, 1)


@pytest.mark.parametrize("points", ["4.5", "-1", "all"])
def test_points_by_hand_above_the_exercise_are_refused(course, points):
    folder, out, _ = course
    add_by_hand(out, "ann", "91.6", points)
    with pytest.raises(MarksError, match=r"row 22 \(ann, 91.6\)"):
        grade(folder, out)


@pytest.mark.parametrize("options", [{"exercises": "91.6"}, {"chapters": ["91"]}])
def test_points_by_hand_for_an_exercise_that_is_not_in_the_run_wait(course, options):
    folder, out, _ = course
    add_by_hand(out, "ann", "92.1", "1.5")
    for _ in range(2):
        summary = grade(folder, out, **options)
        assert "92.1" not in results_of(summary, "ann") and summary.noticed[1:] == []
        assert held(out)["ann", "By hand"] == 1.5
    assert results_of(grade(folder, out), "ann")["92.1"].points == 1.5


@pytest.mark.parametrize("exercise", ["", "91. Jun", "price", "91.7", "99.1"])
def test_points_by_hand_for_no_exercise_of_the_book_are_refused(course, exercise):
    folder, out, _ = course
    add_by_hand(out, "ann", exercise, "1")
    with pytest.raises(MarksError, match=r"row 22 .*points by hand need the exercise, like 3\.2"):
        grade(folder, out)


def test_a_lab_may_be_written_small():
    assert marks._exercises("2l.1") >= {"02L.1"} and marks._exercises("2,10") >= {"02.10"}


def test_points_by_hand_take_the_place_of_what_a_check_said(course):
    folder, out, _ = course
    rows = read(out)
    write(out, [{**row, "points": "" if row["exercise"] == "92.1" else "1"} for row in rows])
    add_by_hand(out, "ann", "92.1", "2")
    summary = grade(folder, out)
    (ann,) = (s for s in summary.submissions if s.student == "ann" and s.chapter == "92")
    ann.results["92.1"] = Result(0.5, "failed", "it counts", "seen", "a hint", held=("a",))
    slots = marks.slots_of(summary.submissions)
    placed = marks.merge(marks.read_sheet(sheet_of(out)), [], slots)
    marks.count(summary.submissions, placed)
    assert ann.results["92.1"] == Result(2.0, "read", note="the points were given by hand")
    assert "What" not in (text := feedback.page("ann", [ann])) and "2 of 2 points" in text
    (counted,) = class_statistics([ann])
    assert (counted.passed, counted.failed, counted.properties) == (1, 0, {})


def test_points_by_hand_are_taken_back_by_an_empty_cell(course):
    folder, out, typed = course
    add_by_hand(out, "ann", "92.1", "2")
    grade(folder, out)
    rows = [row for row in read(out) if row["criterion"] != marks.BY_HAND]
    write(out, rows)
    assert results_of(grade(folder, out), "ann")["92.1"].points == 2  # a deleted row comes back
    rows = read(out)
    for row in rows:
        row["points"] = "" if row["criterion"] == marks.BY_HAND else row["points"]
    write(out, rows)
    for _ in range(2):
        assert results_of(grade(folder, out), "ann")["92.1"].points == typed["ann", "counts"]
    assert held(out) == typed


def test_points_by_hand_without_a_notebook_are_named_until_an_empty_one_is_there(course):
    folder, out, _ = course
    add_by_hand(out, "ann", "92.1", "2")
    (folder / "ann" / "92_demo.ipynb").write_text("{")
    says = "points by hand without a notebook that can be read, not counted: ann 92.1"
    assert says in str(grade(folder, out)).splitlines()
    hand_in(folder / "ann" / "92_demo.ipynb", [], "")
    summary = grade(folder, out)
    assert results_of(summary, "ann")["92.1"].points == 2 and summary.noticed == []


def test_a_mark_out_of_other_points_is_refused_and_not_counted_in_the_wrong_unit(course):
    folder, out, typed = course
    says = r"row 2 \(007, 91.6\): it was marked out of 2, and now counts 4: give --sheet as before"
    with pytest.raises(MarksError, match=says):
        grade(folder, out, exercises="91.6=8")
    grade(folder, out)
    assert held(out) == typed
    rows = read(out)
    for row in rows:
        if row["exercise"] == "91.6":
            row["points"], row["max"] = f"{2 * float(row['points']):g}", "4"
    write(out, rows)
    summary = grade(folder, out, exercises="91.6=8")
    assert results_of(summary, "007")["91.6"].points == 2 * (0.5 + 1) and len(read(out)) == 20
    sheet_of(out).unlink()  # what is remembered has a unit as well
    with pytest.raises(MarksError, match="out of 4, and now counts 2"):
        [grade(folder, out) for _ in range(2)]


def test_a_mark_may_be_emptied_when_its_points_change(course):
    folder, out, typed = course
    changed(points=lambda t: "")(out)
    for _ in range(2):
        grade(folder, out, exercises="91.6=8, 91.10, 92.1")
        assert len(read(out)) == 20 and held(out) == {}
    for row in read(out):
        assert row["note"] == f"the mark was {typed[identity(row)]:g} and is now empty"


def test_marks_that_were_typed_before_there_was_a_roster_count(course, tmp_path):
    folder, out, typed = course
    roster = tmp_path / "roster.csv"
    names = ",".join(STUDENTS[:3]).replace(",", "\n")
    lines = [f"u{n},{name}" for n, name in enumerate(names.split("\n"))]
    roster.write_text("\n".join(["login,name", *lines]) + "\n", encoding="utf-8")
    summary = grade(folder, out, roster=roster)
    assert summary.carried == [] and all(s.status == "graded" for s in summary.submissions)
    assert results_of(summary, "u1")["92.1"].points == typed["ann", "counts"]
    assert held(out).keys() >= {("u1", "counts"), ("'=x", "counts")}


@pytest.mark.parametrize(
    ("text", "value"), [("1.5", 1.5), ("1,5", 1.5), (",5", 0.5), ("2.", 2.0), ("", None), ("'1", 1)]
)
def test_numbers_as_people_write_them(text, value):
    assert marks.number_of(text) == value


@pytest.mark.parametrize("text", ["nan", "inf", "1_0", "1.5.2", "2/2", "50%", "ok", "1 2", "½"])
def test_what_is_no_number_is_not_guessed_at(text):
    with pytest.raises(ValueError):
        marks.number_of(text)
