"""Every exercise of the book: the reference passes, the stub and each wrong answer fail."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest

from irlbook.exercises import all_exercises, release
from irlbook.exercises.answers import Answer
from irlbook.exercises.extract import parse_notebook, read_notebook
from irlbook.exercises.model import run_check
from irlbook.exercises.sandbox import Worker

ROOT = Path(__file__).resolve().parents[1]
BOOK = [e for e in all_exercises() if e.chapter < "90"]
CODE = [e for e in BOOK if e.kind != "written"]


def parsed(chapter: str):
    solutions = (ROOT / "solutions").glob("*.ipynb")
    (path,) = (p for p in solutions if release.chapter_of(p) == chapter)
    return parse_notebook(read_notebook(path))


@pytest.mark.parametrize("exercise", CODE, ids=lambda e: e.id)
def test_reference_passes_and_stub_and_wrong_answers_are_told(exercise):
    assert release.problems(exercise, parsed(exercise.chapter), seeds=(1, 2, 3)) == []


# Of those that train something one is enough: their references have just been run above, and
# training is the same in any process.
TRAINS = [e.id for e in CODE if e.seconds]


@pytest.mark.parametrize(
    "exercise", [e for e in CODE if e.id not in TRAINS[1:]], ids=lambda e: e.id
)
def test_reference_passes_in_the_graders_process(exercise):
    code = parsed(exercise.chapter)
    pieces = code.pieces(exercise.function)
    limits = {"timeout": max(60.0, exercise.seconds), "without": exercise.without}
    with Worker(exercise.function, pieces, flags=code.flags, **limits) as worker:
        run_check(exercise, Answer(exercise.function, worker.send), seed=4)


@pytest.mark.parametrize("exercise", BOOK, ids=lambda e: e.id)
def test_hints_do_not_hold_the_answer(exercise):
    if exercise.kind == "written":
        return
    source = release.reference_source(exercise, parsed(exercise.chapter))
    body = re.search(r"### BEGIN SOLUTION\n(.*?)### END SOLUTION", source, re.S)
    lines = [line.strip() for line in (body[1] if body else "").splitlines()]
    told = "\n".join([*exercise.hints, exercise.goal, exercise.title])
    assert not [line for line in lines if len(line) > 12 and line in told]


def test_the_exercises_are_fit_to_hand_out():
    if not BOOK:
        pytest.skip("no exercises yet")
    assert release.stale(ROOT / "solutions", ROOT / "exercises") == []
    # everything of `verify` but the references, stubs and wrong answers tested above
    for path in sorted((ROOT / "solutions").glob("[0-9][0-9]_*.ipynb")):
        exercises = all_exercises(release.chapter_of(path))
        stamped = release.stamp(read_notebook(path), exercises)
        assert release._notebook_problems(stamped, exercises) == []


def test_wrong_answers_stand_apart_and_each_belongs_to_an_exercise():
    planted = {}
    for chapter in {e.chapter for e in CODE}:
        name = f"lab{chapter[:2]}" if chapter.endswith("L") else f"ch{chapter}"
        module = import_module(f"irlbook.exercises.wrong_answers.{name}")
        planted |= module.WRONG_ANSWERS
    assert planted == {e.id: e.wrong_answers for e in CODE}
