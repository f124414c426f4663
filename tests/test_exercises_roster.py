"""Rosters and downloads of Canvas and Moodle, lateness, and the tables that they take back."""

from __future__ import annotations

import csv
import io
from datetime import datetime
from functools import partial

import pytest
from exercises_classroom import classroom
from exercises_demo import EXERCISES

from irlbook.errors import InvalidHyperparameterError, RosterError
from irlbook.exercises import grading, model
from irlbook.exercises.late import Lateness, LatePolicy, duration, moment, note_lateness
from irlbook.exercises.roster import assign, read_roster, squeezed
from irlbook.exercises.submissions import Result, Submission, find_submissions
from irlbook.exercises.uploads import Grade, upload_table

grade = partial(grading.grade, allow_root=True, progress=False)

CANVAS = """Student,ID,SIS User ID,SIS Login ID,Section,Sheet 90 (4711),Current Score
    Points Possible,,,,,11.0,(read only)
"Doe, Jane",12345,S01,jdoe,Tuesday,,
"Müller, Jörg",222,S02,jm@u.edu,Tuesday,,
"Smith, Ann",333,007,smith1,Friday,,
"Smith, Ann",334,008,smith2,Friday,,
"Lee, Bo",335,,blee,Friday,,
"""
WORKSHEET = (
    "Identifier,Full name,Email address,Status,Grade,Maximum Grade,Grade can be changed,"
    "Last modified (submission),Last modified (grade),Feedback comments\n"
    "Participant 501,Jane Doe,jane@u.edu,Submitted for grading - 1 day 3 hours late,,22.00,Yes,"
    '"Monday, 3 November 2025, 10:15 PM",-,\n'
    'Participant 502,Jörg Müller,joerg@u.edu,Submitted for grading,,22.00,Yes,"Sunday, 2 November '
    '2025, 9:00 AM",-,\n'
    "Participant 503,Ann Smith,ann@u.edu,No submission,,22.00,Yes,-,-,\n"
)
PLAIN = "login;name;section\nann;Ann Smith;A\n007;Bo Lee;B\n"


def roster_of(tmp_path, text, encoding="utf-8"):
    path = tmp_path / "roster.csv"
    path.write_text(text, encoding=encoding)
    return read_roster(path)


def touch(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}", encoding="utf-8")
    return folder


# ------------------------------------------------------------------------------- file names


def test_names_of_canvas_and_of_moodle_are_taken_apart(tmp_path):
    folder = touch(
        tmp_path / "s",
        "doejane_12345_67890_03_price_of_information.ipynb",
        "müllerjörg_LATE_222_67891_06_maxent-2.ipynb",
        "lee-wongbo_335_67892_my notebook.ipynb",
        "Jane Doe_501_assignsubmission_file_/03_price.ipynb",
        "Jörg Müller_502_assignsubmission_file_03_price.ipynb",
        "Ann_Smith_503_assignsubmission_file/03_price.ipynb",
        "Ann_Smith_503_assignsubmission_onlinetext_/onlinetext.html",
        "ann_03_price.ipynb",
        "bob/doejane_12345_67890_03_price.ipynb",  # a student names what lies in his own folder
    )
    found, ignored = find_submissions(folder)
    seen = {(s.student, s.notebook, s.number, s.marked_late) for s in found}
    assert seen == {
        ("doejane_12345", "03_price_of_information.ipynb", "12345", False),
        ("müllerjörg_222", "06_maxent.ipynb", "222", True),
        ("lee-wongbo_335", "my notebook.ipynb", "335", False),
        ("Jane Doe_501", "03_price.ipynb", "501", False),
        ("Jörg Müller_502", "03_price.ipynb", "502", False),
        ("Ann_Smith_503", "03_price.ipynb", "503", False),
        ("ann", "03_price.ipynb", "", False),
        ("bob", "doejane_12345_67890_03_price.ipynb", "", False),
    }
    assert ignored == ["Ann_Smith_503_assignsubmission_onlinetext_"]


def test_of_what_was_handed_in_again_the_last_counts_and_the_others_are_named(tmp_path):
    folder = touch(
        tmp_path / "s",
        "doejane_12345_67890_03_price.ipynb",
        "doejane_LATE_12345_67899_03_price-1.ipynb",
        "doejane_12345_67890_03_price-10.ipynb",
        "doejane_12345_67890_06_maxent.ipynb",
        "leebo_335_67890_03_price.ipynb",
    )
    found, ignored = find_submissions(folder)
    paths = {s.path.name for s in found}
    assert paths == {
        "doejane_12345_67890_03_price-10.ipynb",
        "doejane_12345_67890_06_maxent.ipynb",
        "leebo_335_67890_03_price.ipynb",
    }
    assert {s.notebook for s in found} == {"03_price.ipynb", "06_maxent.ipynb"}
    assert sorted(ignored) == [
        "doejane_12345_67890_03_price.ipynb (handed in again)",
        "doejane_LATE_12345_67899_03_price-1.ipynb (handed in again)",
    ]


def test_who_handed_in_no_notebook_but_something_else_is_told_so(tmp_path):
    folder = touch(
        tmp_path / "s",
        "doejane_12345_67890_sheet 3.pdf",
        "doejane_12345_67891_page 2.jpg",
        "leebo_335_67890_03_price.ipynb",
        "leebo_335_67891_notes.pdf",
        "readme.txt",
    )
    found, ignored = find_submissions(folder)
    (jane,) = (s for s in found if s.path is None)
    assert (jane.student, jane.number, jane.status) == ("doejane_12345", "12345", "not graded")
    assert "sheet 3.pdf is no notebook" in jane.message and "page 2.jpg is no" in jane.message
    assert len(found) == 2 and sorted(ignored) == ["leebo_335_67891_notes.pdf", "readme.txt"]


# ----------------------------------------------------------------------------------- roster


def test_the_export_of_canvas_is_read_without_its_own_rows(tmp_path):
    roster = roster_of(tmp_path, CANVAS)
    assert roster.kind == "canvas"
    assert [s.key for s in roster.students] == ["jdoe", "jm@u.edu", "smith1", "smith2", "blee"]
    jane = roster.students[0]
    assert (jane.name, jane.section, jane.numbers) == ("Jane Doe", "Tuesday", {"12345"})


@pytest.mark.parametrize(
    ("who", "number", "keys"),
    [
        ("doejane", "12345", ["jdoe"]),
        ("somebodyelse", "12345", ["jdoe"]),  # the number decides
        ("doejane", "999", ["jdoe"]),
        ("jdoe", "", ["jdoe"]),
        ("JDOE", "", ["jdoe"]),
        ("Jane Doe", "", ["jdoe"]),
        ("Doe, Jane", "", ["jdoe"]),
        ("doe_jane", "", ["jdoe"]),
        ("müllerjörg", "", ["jm@u.edu"]),
        ("mullerjorg", "", ["jm@u.edu"]),
        ("jm@u.edu", "", ["jm@u.edu"]),
        ("jm", "", ["jm@u.edu"]),
        ("007", "", ["smith1"]),
        ("7", "", ["smith1"]),
        ("smithann", "334", ["smith2"]),
        ("smithann", "", ["smith1", "smith2"]),
        ("Ann Smith", "", ["smith1", "smith2"]),
        ("nobody", "1", []),
        ("", "", []),
    ],
)
def test_a_student_is_found_by_any_of_his_names_or_not_at_all(tmp_path, who, number, keys):
    found = roster_of(tmp_path, CANVAS).find(who, number)
    assert [s.key for s in found] == keys


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_moodles_worksheet_is_read_in_every_encoding(tmp_path, encoding):
    roster = roster_of(tmp_path, WORKSHEET, encoding)
    assert roster.kind == "moodle worksheet"
    assert [s.key for s in roster.students] == ["jane@u.edu", "joerg@u.edu", "ann@u.edu"]
    assert [s.key for s in roster.find("Jorg Muller")] == ["joerg@u.edu"]
    assert [s.key for s in roster.find("x", "503")] == ["ann@u.edu"]


def test_moodles_participants_and_plain_tables_are_read(tmp_path):
    text = "First name,Last name,ID number,Email address,Groups\nJane,Doe,42,j@u.edu,G1\n"
    (jane,) = roster_of(tmp_path, text).students
    assert (jane.key, jane.name, jane.section) == ("j@u.edu", "Jane Doe", "G1")
    roster = roster_of(tmp_path, PLAIN)
    assert [(s.key, s.name) for s in roster.students] == [("ann", "Ann Smith"), ("007", "Bo Lee")]
    assert [s.key for s in roster.find("7")] == ["007"]
    (one,) = roster_of(tmp_path, "name\nAnn Smith\n").students
    assert one.key == "Ann Smith" and "annsmith" in one.names


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("colour,shape\nred,round\n", "no column tells the students apart"),
        ("login\nann\nAnn\n", "rows 2 and 3 are both"),
        ("name\nAnn Smith\nAnn Smith\n", "rows 2 and 3"),
        ("login,name\n", "no student"),
        ("", "is empty"),
    ],
)
def test_a_roster_that_cannot_be_used_is_refused_by_row(tmp_path, text, says):
    with pytest.raises(RosterError, match=says):
        roster_of(tmp_path, text)
    with pytest.raises(RosterError, match="cannot be read"):
        read_roster(tmp_path / "nowhere.csv")
    (tmp_path / "book.xlsx").write_bytes(b"PK\x03\x04")
    with pytest.raises(RosterError, match="workbook"):
        read_roster(tmp_path / "book.xlsx")


def test_nobody_vanishes(tmp_path):
    roster = roster_of(tmp_path, CANVAS)
    handed = [
        Submission("doejane_12345", "03.ipynb", None, who="doejane", number="12345"),
        Submission("smithann", "03.ipynb", None),
        Submission("stranger", "03.ipynb", None),
    ]
    rows, unknown = assign(roster, handed)
    assert [s.student for s in rows] == [
        *("jdoe", "jm@u.edu", "smith1", "smith2", "blee", "smithann", "stranger")
    ]
    assert unknown == ["smithann", "stranger"]
    said = {s.student: s.message for s in rows}
    assert said["smithann"] == "may be smith1 or smith2 of the roster"
    assert said["stranger"] == "not in the roster" and said["blee"] == "nothing was handed in"
    assert [s.status for s in rows][:2] == ["not graded", "missing"]


def test_names_are_squeezed_as_platforms_do():
    assert squeezed("O'Neil-Über, Zoë") == "oneilüberzoë"
    assert squeezed("O'Neil-Über, Zoë", plain=True) == "oneiluberzoe"


# ---------------------------------------------------------------------------------- lateness


@pytest.mark.parametrize(
    ("policy", "hours", "factor"),
    [
        ("10%/day", None, 0.9),
        ("10%/day", 0.01, 0.9),
        ("10%/day", 24, 0.9),
        ("10%/day", 24.01, 0.8),
        ("10%/day", 1000, 0.0),
        ("10%/day, cap 50%", 1000, 0.5),
        ("10%/day, cap 50%, grace 2h", 2, 1.0),
        ("10%/day, cap 50%, grace 2h", 26, 0.9),
        ("10%/day, cap 50%, grace 30 min", 0.6, 0.9),
        ("2.5% a day, grace 1d", 47, 0.975),
        ("1%/hour, cap 30%", 5.5, 0.94),
    ],
)
def test_a_policy_takes_off_what_it_says(policy, hours, factor):
    assert LatePolicy.parse(policy).factor(Lateness(hours)) == pytest.approx(factor)
    assert LatePolicy.parse(policy).factor(None) == 1.0


@pytest.mark.parametrize("text", ["", "10", "10%", "10%/week", "10%/day, cap", "10%/day; cap 5%"])
def test_what_is_no_policy_is_refused_with_an_example(text):
    with pytest.raises(InvalidHyperparameterError, match="10%/day, cap 50%, grace 2h"):
        LatePolicy.parse(text)
    with pytest.raises(InvalidHyperparameterError, match="at most 100"):
        LatePolicy.parse("101%/day")


def test_times_are_read_in_the_forms_that_platforms_write():
    assert duration("2 days 3 hours") == 51 and duration("1d 30min") == 24.5
    assert duration("1 week 2 mins") == 168 + 2 / 60 and duration("1 year") == 8760
    # a month has no one length, and is no minute
    assert [duration(text) for text in ("soon", "2 months", "")] == [None] * 3
    assert moment("Monday, 3 November 2025, 10:15 PM") == datetime(2025, 11, 3, 22, 15)
    assert moment("2025-11-03T22:15") == moment("3 November 2025, 22:15")
    with pytest.raises(RosterError, match="2026-11-20T23:59"):
        moment("tomorrow")


def noted(tmp_path, late_text="", due=None, roster=None, **handed):
    path = tmp_path / "late.csv"
    path.write_text(late_text or "student,late\n", encoding="utf-8")
    rows = [
        Submission(name, "90.ipynb", None, chapter="90", **more) for name, more in handed.items()
    ]
    policy = LatePolicy.parse("10%/day, cap 50%")
    nobody = note_lateness(rows, policy, path if late_text else None, due, roster)
    return {s.student: (s.late, s.factor) for s in rows}, nobody


def test_lateness_comes_from_names_from_a_table_and_from_moodle(tmp_path):
    seen, _ = noted(tmp_path, ann={"marked_late": True}, bob={})
    assert seen == {"ann": ("late (no time known: counted as one day)", 0.9), "bob": ("", 1.0)}
    table = 'student,days late,chapter\nann,3,\nbob,"0,5",3\ncarl,0,\neva,1,\n'
    seen, nobody = noted(tmp_path, table, ann={"marked_late": True}, bob={}, carl={})
    assert seen == {"ann": ("3 d 0 h late", 0.7), "bob": ("", 1.0), "carl": ("", 1.0)}
    assert nobody == ["eva"]
    seen, _ = noted(tmp_path, "student,days late\nann,0\n", ann={"marked_late": True})
    assert seen == {"ann": ("", 1.0)}  # an extension, against what the platform says
    table = "student,submitted\nann,2025-11-03T01:00\nbob,2025-11-02T23:00\n"
    seen, _ = noted(tmp_path, table, datetime(2025, 11, 3), ann={}, bob={})
    assert seen == {"ann": ("1 h late", 0.9), "bob": ("", 1.0)}
    roster = roster_of(tmp_path, WORKSHEET)
    keys = {"jane@u.edu": {}, "joerg@u.edu": {}, "ann@u.edu": {}}
    seen, _ = noted(tmp_path, roster=roster, **keys)
    assert [factor for _, factor in seen.values()] == [0.8, 1.0, 1.0]
    seen, _ = noted(tmp_path, due=datetime(2025, 11, 1, 9), roster=roster, **keys)
    assert [factor for _, factor in seen.values()] == [0.8, 0.9, 1.0]
    own = "email,hours late\njoerg@u.edu,100\n"
    seen, _ = noted(tmp_path, own, roster=roster, **keys)
    assert seen["joerg@u.edu"] == ("4 d 4 h late", 0.5)


@pytest.mark.parametrize("chapter", ["3L", "03L", "03l"])
def test_a_row_of_lateness_is_bound_to_a_lab_in_any_spelling(tmp_path, chapter):
    path = tmp_path / "late.csv"
    path.write_text(f"student,days late,chapter\nann,2,{chapter}\n", encoding="utf-8")
    rows = [Submission("ann", f"{c}.ipynb", None, chapter=c) for c in ("03", "03L")]
    note_lateness(rows, LatePolicy.parse("10%/day"), path)
    assert [row.factor for row in rows] == [1.0, 0.8]


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ("colour\nred\n", "no column names the student"),
        ("student,days late\nann,x\n", "late.csv, row 2: 'x' is no number"),
        ("student,late\nann,x\n", "write it like 2 days"),
        ("student,late\nann,2 months\n", "write it like 2 days"),
        ("student,status\nann,Submitted - 2 fortnights late\n", "'2 fortnights' is no time"),
        ("student,submitted\nann,2025-11-03T01:00+01:00\n", "time zone"),
    ],
)
def test_a_table_of_lateness_that_cannot_be_read_is_refused(tmp_path, table, says):
    with pytest.raises(RosterError, match=says):
        noted(tmp_path, table, datetime(2025, 11, 3), ann={})


# ------------------------------------------------------------------------------------ upload


def cells(text, delimiter=","):
    return list(csv.reader(io.StringIO(text), delimiter=delimiter))


def test_canvas_gets_its_own_columns_back_with_one_filled_in(tmp_path):
    roster = roster_of(tmp_path, CANVAS)
    grades = {"jdoe": Grade(7.5), "smith1": Grade(None, "needs manual"), "blee": Grade(0.0)}
    text, said = upload_table(roster, grades, "Sheet 90", 11)
    rows = cells(text)
    assert rows[0] == [
        *("Student", "ID", "SIS User ID", "SIS Login ID", "Section", "Sheet 90 (4711)")
    ]
    assert rows[1][0].strip() == "Points Possible" and rows[1][-1] == "11"
    assert [(row[1], row[-1]) for row in rows[2:]] == [
        *(("12345", "7.5"), ("222", ""), ("333", ""), ("334", ""), ("335", "0"))
    ]
    assert rows[2][0] == "Doe, Jane" and said == ""
    text, said = upload_table(roster, grades, "Sheet 91", 22)  # a new column
    assert cells(text)[0][-1] == "Sheet 91" and cells(text)[1][-1] == "22" and said == ""
    text, said = upload_table(roster, grades, "Sheet 90 (4711)", 22)
    assert cells(text)[2][-1] == "3.75" and "scaled by 0.5" in said


def test_moodles_worksheet_is_filled_in_to_its_own_maximum(tmp_path):
    roster = roster_of(tmp_path, WORKSHEET)
    text, said = upload_table(roster, {"jane@u.edu": Grade(5.5)}, "", 11)
    rows = [dict(zip(cells(text)[0], row, strict=True)) for row in cells(text)[1:]]
    assert [row["Grade"] for row in rows] == ["11", "", ""] and "scaled by 2" in said
    assert rows[0]["Feedback comments"] == "5.5 of 11 points"
    assert rows[0]["Identifier"] == "Participant 501" and len(rows[0]) == 10
    assert {row["Last modified (grade)"] for row in rows} == {"-"}  # as it came


def test_a_negative_number_is_no_formula_and_comes_back_as_it_came(tmp_path):
    roster = roster_of(tmp_path, "login,name,balance\na,A,-5.00\nb,B,-1+1\nc,C,-SUM(A1)\n")
    upload, _ = upload_table(roster, {}, "x", 2)
    assert [row[2] for row in cells(upload)] == ["balance", "-5.00", "'-1+1", "'-SUM(A1)"]


def test_no_cell_of_an_upload_is_a_formula(tmp_path):
    text = 'login,name\n=cmd|x,"=HYPERLINK(""x"")"\n+1,@a\n'
    roster = roster_of(tmp_path, text)
    upload, _ = upload_table(roster, {s.key: Grade(1.0) for s in roster.students}, "=x", 2)
    assert not [c for row in cells(upload) for c in row if c.startswith(("=", "+", "-", "@"))]


# ------------------------------------------------------------------------------- all of it


@pytest.fixture
def demo_chapter():
    saved = dict(model._REGISTRY)
    model._REGISTRY.update({e.id: e for e in EXERCISES})
    yield
    model._REGISTRY.clear()
    model._REGISTRY.update(saved)


def test_a_class_of_canvas_is_graded_from_download_to_upload(demo_chapter, tmp_path, monkeypatch):
    def half(exercise, submission, **limits):
        if exercise.kind == "written":
            return Result(None, "manual")
        return Result(exercise.points, "ok")

    monkeypatch.setattr(grading, "grade_exercise", half)
    folder = tmp_path / "s"
    classroom(folder, EXERCISES, tmp_path, names=["stub"])
    notebook = (folder / "stub" / "90_demo.ipynb").read_bytes()
    for name in (
        "doejane_LATE_12345_67890_90_demo.ipynb",
        "doejane_12345_67889_90_demo-1.ipynb",
        "müllerjörg_222_67891_90_demo.ipynb",
        "stranger_9_67892_90_demo.ipynb",
    ):
        (folder / name).write_bytes(notebook)
    (tmp_path / "roster.csv").write_text(CANVAS, encoding="utf-8-sig")
    out, upload = tmp_path / "grades.csv", tmp_path / "up" / "canvas.csv"
    options = {
        "roster": tmp_path / "roster.csv",
        "upload": upload,
        "assignment": "Sheet 90",
        "late_policy": LatePolicy.parse("10%/day"),
    }
    (tmp_path / "late.csv").write_text("login\njdoe\n", encoding="utf-8")
    first = grade(folder, out, tmp_path / "pages", **options)
    assert first.unknown == ["stranger_9", "stub"]
    assert "left empty: 3 (nothing was handed in)" in str(first)
    assert "left empty: 2 (a written answer is unread)" in str(first)
    text = first.written_csv.read_text(encoding="utf-8-sig")
    rows = list(csv.DictReader(io.StringIO(text)))
    for row in rows:
        row["points"] = "2"
    with first.written_csv.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    again = grade(folder, out, tmp_path / "pages", **options)
    raw = out.read_bytes()
    assert raw.startswith(b"\xef\xbb\xbf")  # so that Excel reads Jörg
    table = {r["student"]: r for r in csv.DictReader(io.StringIO(raw.decode("utf-8-sig")))}
    assert list(table)[:5] == ["jdoe", "jm@u.edu", "smith1", "smith2", "blee"]
    jane = table["jdoe"]
    assert (jane["name"], jane["section"], jane["points"]) == ("Jane Doe", "Tuesday", "11")
    assert (jane["late_factor"], jane["final"]) == ("1", "11")  # handed in again, in time
    assert table["blee"]["status"] == "missing" and table["stranger_9"]["points"] == "11"
    grades = {row[1]: row[-1] for row in cells(upload.read_text(encoding="utf-8-sig"))[2:]}
    assert grades == {"12345": "11", "222": "11", "333": "", "334": "", "335": ""}
    assert upload.read_bytes().startswith(b"\xef\xbb\xbf")  # as the roster was
    assert again.kept == 12
    (folder / "doejane_12345_67889_90_demo-1.ipynb").unlink()
    late = grade(folder, out, tmp_path / "pages", **options)
    (jane,) = (s for s in late.submissions if s.student == "jdoe")
    assert (jane.points, jane.factor, jane.final) == (11, 0.9, pytest.approx(9.9))
    page = next(p for p in late.pages if p.stem == "jdoe").read_text(encoding="utf-8")
    assert "Feedback for Jane Doe" in page and "count 90 %, which leaves 9.9" in page
    grades = {row[1]: row[-1] for row in cells(upload.read_text(encoding="utf-8-sig"))[2:]}
    assert grades["12345"] == "9.9"


def test_an_upload_without_a_roster_is_refused(tmp_path):
    with pytest.raises(RosterError, match="--roster"):
        grade(tmp_path, tmp_path / "g.csv", upload=tmp_path / "u.csv")
