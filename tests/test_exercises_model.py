"""Cards, the registry, the helpers of checks, and what a student is told."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
import scipy.sparse
import torch
from exercises_demo import EXERCISES

from irlbook import exercises
from irlbook.errors import CheckFailed, InvalidExerciseError, UnknownExerciseError
from irlbook.exercises import Criterion, expect, model
from irlbook.exercises.answers import local_answer


@pytest.fixture(autouse=True)
def demo(monkeypatch):
    model.all_exercises()  # a chapter is registered once, when it is first imported
    monkeypatch.setattr(model, "_REGISTRY", dict(model._REGISTRY))
    for exercise in EXERCISES:
        exercises.register(exercise)


def soft_backup(q, beta):
    top = q.max(axis=1)
    return top + beta * np.log(np.exp((q - top[:, None]) / beta).sum(axis=1))


def test_a_right_answer_prints_ok(capsys):
    exercises.check("90.1", soft_backup)
    exercises.check("90.1", soft_backup, seed=5)
    assert capsys.readouterr().out == "ok: 90.1 A soft backup\n" * 2


def test_cards_and_hints(capsys):
    card = exercises.card("90.1")
    assert "3 points" in card.markdown() and "●●○○○" in card.markdown()
    assert card.markdown() == card._repr_markdown_()
    assert "A soft backup" in str(card) and "<details>" in card.markdown()
    exercises.hint("90.1", 3)
    assert "Subtract the maximum" in capsys.readouterr().out
    with pytest.raises(ValueError, match="three hints"):
        exercises.hint("90.1", 4)


def test_a_written_exercise_is_left_to_the_instructor(capsys):
    exercises.check("90.4")
    assert "instructor reads" in capsys.readouterr().out
    with pytest.raises(InvalidExerciseError, match="no check"):
        model.run_check(exercises.get("90.4"), None)


def test_an_unknown_exercise_is_named_with_its_neighbours():
    with pytest.raises(UnknownExerciseError, match=r"no exercise '90.9'; exercises: 90.1, 90.2"):
        exercises.card("90.9")
    with pytest.raises(UnknownExerciseError, match="chapters with exercises: .*90"):
        exercises.card("89.1")


def failure(function, id="90.1") -> str:
    with pytest.raises(CheckFailed) as caught:
        exercises.check(id, function)
    return str(caught.value)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (lambda q, b: q.max(axis=1), "hard maximum"),
        (lambda q, b: None, "None .is the `return` missing"),
        (lambda q, b: q, "its shape is"),
        (lambda q, b: q.max(axis=1) * np.nan, "finite"),
        (lambda q, b: "text", "is a str"),
        (lambda q, b: [[1], [2, 3]], "an array of numbers"),
        (lambda q, b: (q.max(axis=1), q), "several values"),
        (lambda q, b: object(), "of type object"),
        (lambda q, b: {"v": 1}, "a dict of 1"),
        (lambda q, b: np.array(["a"] * len(q)), "holds text"),
        (
            lambda q, b: 1 / 0,
            r"ZeroDivisionError: division by zero \(line \d+: `.*1 / 0",
        ),
        (lambda q: q, "TypeError"),
        (lambda q, b: no_such_name, "NameError.*\n.*define or import"),  # noqa: F821
        (lambda q, b: sys.exit(), "SystemExit"),
        ("soft_backup", "pass the function itself"),
    ],
)
def test_what_can_come_back_is_told_plainly(answer, says):
    assert re.search(says, failure(answer))


def test_changing_an_argument_is_told():
    def shifts(q, beta):
        q -= 1
        return soft_backup(q, beta) + 1

    assert "changes an argument in place" in failure(shifts)


def test_a_stub_is_told_to_write():
    def stub(q, beta):
        raise NotImplementedError

    assert "write the body of `soft_backup`" in failure(stub)


def test_the_student_sees_the_message_and_no_traceback_into_the_check():
    with pytest.raises(CheckFailed) as caught:
        exercises.check("90.1", lambda q, b: q.max(axis=1))
    shown = caught.value._render_traceback_()
    assert shown[0] == "CheckFailed" and "not yet: 90.1" in shown[1]
    assert not any("expect_close" in line for line in shown)
    files = [entry.frame.code.name for entry in caught.traceback]
    assert "check_soft_backup" not in files
    assert caught.value.__cause__ is None


def test_no_message_holds_the_expected_numbers():
    rng = np.random.default_rng([901, 0])
    q = rng.normal(size=(rng.integers(2, 6), rng.integers(2, 5)))
    said = failure(lambda q, b: np.zeros(len(q)))
    assert not any(f"{value:.3f}" in said for value in np.abs(q).ravel())


def test_ctrl_c_is_not_swallowed():
    def interrupted(q, beta):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        exercises.check("90.1", interrupted)


def test_a_check_that_stumbles_over_a_result_fails_it():
    exercise = dataclasses.replace(
        exercises.get("90.1"), check=lambda answer, rng: answer(np.eye(2), 1.0)["key"]
    )
    with pytest.raises(CheckFailed, match="the form that the task asks for"):
        model.run_check(exercise, local_answer(soft_backup))


def test_a_check_that_passes_what_is_no_data_is_the_authors_fault():
    exercise = dataclasses.replace(
        exercises.get("90.1"), check=lambda answer, rng: answer(lambda: 0, 1.0)
    )
    with pytest.raises(InvalidExerciseError, match="passes a value of type function"):
        model.run_check(exercise, local_answer(soft_backup))


def test_the_same_seed_gives_the_same_cases():
    seen = []
    for seed in (None, None, 3):
        cases = []
        exercise = exercises.get("90.1")
        model.run_check(
            exercise, local_answer(lambda q, b, c=cases: (c.append(q), soft_backup(q, b))[1]), seed
        )
        seen.append(np.concatenate([c.ravel() for c in cases]))
    np.testing.assert_array_equal(seen[0], seen[1])
    assert not np.array_equal(seen[0][:4], seen[2][:4])


# ------------------------------------------------------------------------------------ cards


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"id": "3.2"}, "id must look like"),
        ({"hints": ("one", "two")}, "exactly three hints"),
        ({"difficulty": 6}, "1-5"),
        ({"points": 0}, "positive"),
        ({"kind": "quiz"}, "unknown kind"),
        ({"function": ""}, "name the function"),
        ({"check": None}, "check function"),
        ({"kind": "written"}, "needs a rubric"),
        ({"kind": "written", "check": None, "rubric": (Criterion(1, "x"),)}, "adds up to 1"),
    ],
)
def test_a_card_that_breaks_a_rule_is_refused(change, says):
    with pytest.raises(InvalidExerciseError, match=says):
        dataclasses.replace(EXERCISES[0], **change)


def test_two_exercises_must_not_share_an_id_or_a_function():
    with pytest.raises(InvalidExerciseError, match="both ask for `soft_backup`"):
        exercises.register(dataclasses.replace(EXERCISES[0], id="90.7"))
    with pytest.raises(InvalidExerciseError, match="two exercises have the id 90.1"):
        exercises.register(dataclasses.replace(EXERCISES[0], title="Another"))


# ---------------------------------------------------------------------------------- helpers

SAY = {"property": "it holds", "hint": "think"}


@pytest.mark.parametrize(
    "call",
    [
        lambda: expect.fail("it holds", "think"),
        lambda: expect.expect(np.array([True, False]), **SAY),
        lambda: expect.expect_close([1.0, 2.0], [1.0, 2.1], **SAY),
        lambda: expect.expect_close(1.0, [1.0, 1.0], **SAY),
        lambda: expect.expect_close(np.inf, 1.0, **SAY),
        lambda: expect.expect_equal([1, 2], [1, 3], **SAY),
        lambda: expect.expect_equal("a", "b", **SAY),
        lambda: expect.expect_equal(1, None, **SAY),
        lambda: expect.expect_equal(["a"], ["b"], **SAY),
        lambda: expect.expect_shape(np.ones(3), (2,), hint="think"),
        lambda: expect.expect_shape(np.ones((3, 2)), (-1,), hint="think"),
        lambda: expect.expect_distribution([0.5, 0.6]),
        lambda: expect.expect_distribution([1.5, -0.5]),
        lambda: expect.expect_type(1, str, hint="think"),
        lambda: expect.expect_type(1, (str, list), hint="think"),
        lambda: expect.expect_length((1, 2), 3, hint="think"),
        lambda: expect.expect_length(np.ones(2), 3, hint="think"),
        lambda: expect.expect_length(np.ones(()), 1, hint="think"),
        lambda: expect.expect_length("ab", 2, hint="think"),
        lambda: expect.as_array([1.0, "2"]),
        lambda: expect.expect_equal(np.str_("a"), "b", **SAY),
        lambda: expect.expect_close(np.float32(1.001), 1.0, **SAY),
        lambda: expect.expect_close(np.float16(1.001), 1.0, **SAY),
        lambda: expect.expect_raises(ValueError, local_answer(lambda: 1), **SAY),
        lambda: expect.expect_raises(ValueError, local_answer(lambda: [][0]), **SAY),
    ],
)
def test_helpers_fail(call):
    with pytest.raises(CheckFailed):
        call()


def test_helpers_pass():
    expect.expect(True, **SAY)
    expect.expect_close([1.0, -np.inf], [1.0 + 1e-12, -np.inf], **SAY)
    expect.expect_close(3, 3.0, **SAY)
    expect.expect_equal([1, 2], (1, 2), **SAY)
    expect.expect_equal({"a": 1}, {"a": 1}, **SAY)
    expect.expect_equal(["a"], ["a"], **SAY)
    expect.expect_shape(np.ones((3, 2)), (-1, 2), hint="think")
    expect.expect_distribution([[0.5, 0.5], [1, 0]], (2, 2))
    assert expect.expect_type(1, int, hint="think") == 1
    assert expect.expect_length((1, 2), 2, hint="think") == (1, 2)
    expect.expect_raises(ValueError, local_answer(lambda: int("x")), **SAY)
    expect.expect_raises("ArithmeticError", local_answer(lambda: 1 / 0), **SAY)
    assert expect.as_array(np.float32(2)).shape == ()
    torch = pytest.importorskip("torch")
    expect.expect_close(torch.ones(2), torch.ones(2), **SAY)


def test_a_mistake_is_named_only_when_it_tells():
    def said(got, mistakes):
        with pytest.raises(CheckFailed) as caught:
            expect.expect_close(got, np.ones(2), mistakes=mistakes, **SAY)
        return caught.value.detail

    assert said(np.zeros(2), {"you forgot": np.zeros(2)}) == "it looks as if you forgot"
    assert said(np.zeros(2), {"you forgot": lambda: np.zeros(2)}) == "it looks as if you forgot"
    assert said(np.zeros(2), {"broken": lambda: 1 / 0}) == "2 of 2 entries differ"
    assert said(np.zeros(2), {"same as right": np.ones(2)}) == "2 of 2 entries differ"


def test_importing_the_exercises_imports_neither_torch_nor_scipy():
    code = (
        "import sys, irlbook.exercises as e; e.all_exercises(); print({'torch'} & set(sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"


def test_of_one_chapter_that_chapter_alone_is_loaded():
    code = (
        "import sys, irlbook.exercises as e; found = e.all_exercises('03'); "
        "loaded = [m.rpartition('.')[2] for m in sys.modules if '.exercises.chapters.' in m]; "
        "print({x.chapter for x in found}, loaded, e.all_exercises('98'))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "{'03'} ['ch03'] []"


@pytest.mark.parametrize(
    "call",
    [
        lambda: expect.expect_equal(np.str_("a"), "a", **SAY),
        lambda: expect.expect_equal(np.array("a"), "a", **SAY),
        lambda: expect.expect_equal((np.str_("a"), "b"), ["a", "b"], **SAY),
        lambda: expect.expect_equal(np.array(["a", "b"]), ["a", "b"], **SAY),
        lambda: expect.expect_equal(np.array(3), 3, **SAY),
        lambda: expect.expect_equal(torch.tensor(3), 3, **SAY),
        lambda: expect.expect_equal(np.True_, True, **SAY),
        lambda: expect.expect_close(torch.ones(2, requires_grad=True), [1.0, 1.0], **SAY),
        lambda: expect.expect_close([torch.tensor(1.0, requires_grad=True), 1], [1, 1], **SAY),
        lambda: expect.expect_close((np.ones(2), np.ones(2)), np.ones((2, 2)), **SAY),
        lambda: expect.expect_close(np.float32(1 / 3), 1 / 3, **SAY),
        lambda: expect.expect_close(torch.arange(9.0).sum() / 7, 36 / 7, **SAY),
        lambda: expect.expect_close([[0.25]], np.array([[0.25]]), **SAY),
        lambda: expect.expect_type(np.str_("a"), str, hint="think"),
        lambda: expect.expect_type(np.array(2), int, hint="think"),
        lambda: expect.expect_type(np.float32(2), float, hint="think"),
        lambda: expect.expect_type(torch.tensor(True), bool, hint="think"),
        lambda: expect.expect_length(np.ones(2), 2, hint="think"),
        lambda: expect.expect_length(np.ones((2, 3)), 2, hint="think"),
        lambda: expect.expect_length(torch.ones(2), 2, hint="think"),
        lambda: expect.expect_length([1, 2], 2, hint="think"),
    ],
)
def test_a_right_answer_in_another_form_is_right(call):
    call()


def test_an_array_where_a_tuple_was_asked_comes_apart():
    first, second = expect.expect_length(np.arange(6).reshape(2, 3), 2, hint="think")
    assert list(first) == [0, 1, 2] and list(second) == [3, 4, 5]


@pytest.mark.parametrize(
    "got",
    [
        scipy.sparse.csr_array((10**6, 10**9)),
        [1.0] * 10**5 + ["x" * 10**6],
        [np.array("x" * 10**6), *range(10**5)],
        ["x" * 10**6] + ["y"] * 10**5,
    ],
)
def test_no_result_makes_a_check_ask_for_much_memory(got):
    tracemalloc.start()
    with pytest.raises(CheckFailed):
        expect.as_array(got)
    with pytest.raises(CheckFailed):
        expect.as_array(got, (2, 3))
    with pytest.raises(CheckFailed):
        expect.expect_equal(got, ["a", "b"], **SAY)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50 * 2**20


def test_an_unknown_exercise_is_one_line_in_a_notebook():
    for call in (exercises.check, exercises.card, exercises.hint):
        with pytest.raises(UnknownExerciseError) as caught:
            call("90.9")
        (line,) = caught.value._render_traceback_()
        assert line.startswith("UnknownExerciseError: no exercise '90.9'; exercises: 90.1, ")
