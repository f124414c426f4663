"""A sheet with some of the exercises, and with points of one's own."""

from __future__ import annotations

from functools import partial

import pytest
from exercises_classroom import classroom
from exercises_demo import EXERCISES

from irlbook.errors import InvalidHyperparameterError, UnknownExerciseError
from irlbook.exercises import grading, model
from irlbook.exercises.sheet import on_the_sheet, parse_sheet
from irlbook.exercises.submissions import Result

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
    ],
)
def test_a_sheet_is_read_as_people_write_it(text, points):
    cards = {id: model.get(id).points if own is None else own for id, own in points.items()}
    assert parse_sheet(text) == cards


@pytest.mark.parametrize(
    "text", ["", "6", "6.1;6.2", "6.3-6.1", "6.1-7.2", "6.1, 6.1", "6.1=0", "6.1=x", "6.1-3,6.2=1"]
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
