"""A sheet with some of the exercises, and with points of one's own."""

from __future__ import annotations

from functools import partial

import pytest
from exercises_classroom import classroom
from exercises_demo import EXERCISES

from irlbook.errors import InvalidHyperparameterError, UnknownExerciseError
from irlbook.exercises import grading, marks, model
from irlbook.exercises.late import LatePolicy
from irlbook.exercises.sheet import chapters_of, on_the_sheet, parse_sheet, weigh
from irlbook.exercises.submissions import Result, Submission

grade = partial(grading.grade, allow_root=True, progress=False)


@pytest.fixture
def small(monkeypatch, tmp_path):
    """One submission of the demo chapter, graded without processes: (folder, table, calls)."""
    monkeypatch.setattr(model, "_REGISTRY", {**model._REGISTRY, **{e.id: e for e in EXERCISES}})
    calls = []

    def half(exercise, submission, **limits):
        if exercise.kind == "written":
            return Result(None, "manual")
        calls.append((exercise.id, exercise.points))
        return Result(exercise.points / 2, "failed")

    monkeypatch.setattr(grading, "grade_exercise", half)
    classroom(tmp_path / "submissions", EXERCISES, tmp_path, names=["stub"])
    return tmp_path / "submissions", tmp_path / "grades.csv", calls


@pytest.mark.parametrize(
    ("text", "points"),
    [
        ("6.1-6.3", dict.fromkeys(("06.1", "06.2", "06.3"))),
        ("6.1\u20133", dict.fromkeys(("06.1", "06.2", "06.3"))),
        ("06.2 = 2.5, 6L.1", {"06.2": 2.5, "06L.1": None}),
        ("6l.1-2=1", {"06L.1": 1, "06L.2": 1}),
        ("06.1-6.2=2, 6L.1-06L.2", {"06.1": 2, "06.2": 2, "06L.1": None, "06L.2": None}),
        ("16.1-16.2", {"16.1": None, "16.2": None}),
    ],
)
def test_a_sheet_is_read_as_people_write_it(text, points):
    cards = {id: model.get(id).points if own is None else own for id, own in points.items()}
    assert parse_sheet(text) == cards


@pytest.mark.parametrize(
    "text",
    [
        *("", "6", "6.1;6.2", "6.3-6.1", "6.1-7.2", "6.1-16.2"),
        *("6.1, 6.1", "6.1=0", "6.1=x", "6.1-3,6.2=1"),
    ],
)
def test_what_is_no_sheet_is_refused_with_an_example(text):
    with pytest.raises(InvalidHyperparameterError, match=r"6\.1-6\.4"):
        parse_sheet(text)


def test_an_exercise_that_is_not_there_is_refused():
    with pytest.raises(UnknownExerciseError, match="06.7"):
        parse_sheet("6.1-6.9")


def test_a_rubric_keeps_its_proportions():
    card = next(e for e in EXERCISES if e.rubric)
    heavy = on_the_sheet(card, 2 * card.points)
    assert [c.points for c in heavy.rubric] == [2 * c.points for c in card.rubric]
    assert on_the_sheet(card, card.points) is card


@pytest.mark.parametrize("id", ["22.6", "23.6", "02L.7", "08.5", "15L.2", "15L.9", "04.6"])
@pytest.mark.parametrize("points", [0.02, 0.7, 5, 7, 10, 999.99])
def test_every_line_of_a_rubric_can_be_given_its_maximum(tmp_path, id, points):
    card = model.get(id)
    exercise = on_the_sheet(card, points)
    for line, old in zip(exercise.rubric, card.rubric, strict=True):
        assert abs(line.points - old.points * points / card.points) <= 0.01 + 1e-9
        assert line.points >= 0
    ann = Submission("ann", "x.ipynb", None, exercises=[exercise])
    slots = marks.slots_of([ann])
    rows = [{**row, "points": row["max"]} for row in marks.table(marks.Marks(), slots)]
    path = tmp_path / "grades_written.csv"
    path.write_text(marks.sheet_text(marks.Sheet(), rows), encoding="utf-8")
    marks.count([ann], marks.merge(marks.read_sheet(path), [], slots))
    assert ann.results[id] == Result(points, "read") and ann.status == "graded"


def test_all_points_of_the_card_are_all_points_of_the_sheet():
    card = model.get("03.1")
    for hundredths in range(1, 2000):
        points = hundredths / 100
        ann = Submission("ann", "x.ipynb", None, exercises=[on_the_sheet(card, points)])
        ann.results[card.id] = Result(card.points, "ok")
        weigh([ann])
        assert ann.results[card.id].points == points


def test_a_chapter_beside_a_sheet_must_be_on_it_and_chooses_from_it(small):
    sheet = parse_sheet("2.1, 3.1-3.4, 6L.1")
    assert chapters_of(sheet) == ["02", "03", "06L"] and chapters_of(sheet, ["6l"]) == ["6l"]
    says = r"--chapter 2L is not on the sheet: add 2L\.1-2L\.7 to it, or leave --chapter out"
    with pytest.raises(InvalidHyperparameterError, match=says):
        grade(*small[:2], chapters=["3", "2L"], exercises="2.1, 3.1")
    with pytest.raises(InvalidHyperparameterError, match="is not on the sheet: leave"):
        chapters_of(sheet, ["99"])
    summary = grade(*small[:2], chapters=["3"], exercises="3.1, 90.1")
    assert summary.submissions[0].message.startswith("nothing for chapter 03; handed in")


def test_a_sheet_that_is_empty_is_refused(small):
    with pytest.raises(InvalidHyperparameterError, match="no sheet"):
        grade(*small[:2], exercises="")


def test_what_the_sheet_leaves_out_is_said_to_be_left_out(small):
    with pytest.raises(UnknownExerciseError, match="handed in, or the sheet leaves it out"):
        grade(*small[:2], exercises="90.1", only=["90.2"])


def test_options_that_count_otherwise_than_in_the_last_run_are_noticed(small):
    folder, out, _ = small
    policy = LatePolicy.parse("10%/day, cap 50%, grace 2h")
    assert grade(folder, out, exercises="90.1", late_policy=policy).noticed == []
    assert grade(folder, out, exercises="90.1", late_policy=policy).noticed == []
    with pytest.raises(InvalidHyperparameterError):
        grade(folder, out, exercises="")  # what did not run is no last run
    summary = grade(folder, out)
    sheet, late = summary.noticed
    assert sheet == "--sheet is not as in the last run, which had '90.1': give it again?"
    assert "--late-policy is not as in the last run, which had '10%/day, cap 50%" in late
    assert sheet in str(summary).splitlines() and grade(folder, out).noticed == []


def test_a_sheet_of_ones_own_changes_no_result_and_runs_nothing_twice(small):
    folder, out, calls = small
    (whole,) = grade(folder, out).submissions
    assert (whole.points, whole.maximum) == (3.5, 11) and len(calls) == 3
    (part,) = grade(folder, out, exercises="90.1-90.2=10").submissions
    assert (part.points, part.maximum, list(part.results)) == (10, 20, ["90.1", "90.2"])
    header = out.read_text(encoding="utf-8-sig").splitlines()[0]
    assert "90.2" in header and "90.3" not in header and "90.4" not in header
    (part,) = grade(folder, out, exercises="90.2, 90.4=8").submissions
    assert (part.points, part.maximum, part.needs_manual) == (1, 10, ["90.4"])
    (again,) = grade(folder, out).submissions
    assert (again.points, again.maximum) == (3.5, 11)
    assert calls == [("90.1", 3), ("90.2", 2), ("90.3", 2)]  # once, with the points of the cards


def test_marks_are_typed_and_counted_in_points_of_the_sheet(small):
    folder, out, _ = small
    summary = grade(folder, out, exercises="90.4=8")
    text = summary.written_csv.read_text(encoding="utf-8-sig")
    assert text.count(",4,,") == 2  # two lines of two points each
    summary.written_csv.write_text(text.replace(",4,,", ",4,3,"), encoding="utf-8-sig")
    (marked,) = grade(folder, out, exercises="90.4=8").submissions
    assert (marked.points, marked.maximum, marked.status) == (6, 8, "graded")
