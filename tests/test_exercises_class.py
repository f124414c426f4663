"""A class: several processes, one exercise alone, part of the points, and what the class missed."""

from __future__ import annotations

import csv
import io
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import pytest
from exercises_classroom import classroom
from exercises_demo import EXERCISES, SOLUTIONS

from irlbook.errors import CheckFailed
from irlbook.exercises import grading, jobs, model, release, sandbox
from irlbook.exercises.answers import Answer, local_answer
from irlbook.exercises.expect import expect, expect_close, fail
from irlbook.exercises.extract import parse_cells, parse_notebook, read_notebook
from irlbook.exercises.model import Exercise
from irlbook.exercises.nursery import Forked, Nursery
from irlbook.exercises.partial import points_for, properties
from irlbook.exercises.statistics import class_statistics, statistics_csv, statistics_page
from irlbook.exercises.submissions import Result, Submission

grade = partial(grading.grade, allow_root=True, progress=False)
ROOT = Path(__file__).resolve().parents[1]
BOOK = {e.id: e for e in model.all_exercises()}  # before a test puts others in their place
LINUX = sys.platform.startswith("linux")


@pytest.fixture
def demo_chapter():
    saved = dict(model._REGISTRY)
    model._REGISTRY.update({e.id: e for e in EXERCISES})
    yield
    model._REGISTRY.clear()
    model._REGISTRY.update(saved)


@pytest.fixture
def folder(demo_chapter, tmp_path):
    folder = tmp_path / "submissions"
    classroom(folder, EXERCISES, tmp_path, names=["returns_nan", "stub", "exits_hard"])
    return folder


def results(summary):
    return {(s.student, id): r for s in summary.submissions for id, r in s.results.items()}


def test_two_processes_give_the_results_of_one_in_the_same_files(folder, tmp_path):
    texts = []
    for n in (1, 2):
        out = tmp_path / str(n) / "grades.csv"
        summary = grade(folder, out, tmp_path / str(n) / "pages", seed=5, jobs=n)
        names = [out, summary.written_csv, summary.statistics, *sorted(summary.pages)]
        texts.append([path.read_text(encoding="utf-8") for path in names])
        assert results(summary)["exits_hard", "90.2"].status == "ok"
    assert texts[0] == texts[1]


def test_an_interrupted_run_of_two_processes_goes_on_where_it_was(folder, tmp_path):
    def interrupt(done, total, label):
        if done == 2:
            raise KeyboardInterrupt

    out = tmp_path / "grades.csv"
    with pytest.raises(KeyboardInterrupt):
        grading.grade(folder, out, progress=interrupt, jobs=2, allow_root=True)
    assert not multiprocessing.active_children() and not out.exists()
    journal = grading.Journal(grading.journal_path(out))
    kept = len(journal.done)
    assert kept >= 1
    summary = grade(folder, out, jobs=2)
    assert summary.kept == kept and summary.seed == journal.seed
    assert len(results(summary)) == 12


def half(number):
    if number == 3:
        os._exit(9)
    return number / 2


def test_a_process_that_dies_costs_its_own_task_alone():
    tasks = [(n,) for n in range(8)]
    found = dict(jobs.in_parallel(half, tasks, 2))
    assert found == {n: None if n == 3 else n / 2 for n in range(8)}


SLEEPER = """
import signal
import sys
from pathlib import Path
sys.path[:0] = {path!r}
from exercises_demo import EXERCISES
from irlbook.exercises import grading, model
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    model._REGISTRY.update({{e.id: e for e in EXERCISES}})
    try:
        grading.grade(Path({folder!r}), Path({out!r}), progress=False, jobs=2, allow_root=True)
    except KeyboardInterrupt:
        sys.exit(130)
"""


@pytest.mark.skipif(not LINUX, reason="signals to a group, and /proc")
def test_ctrl_c_ends_the_processes_and_the_answers_that_they_run(demo_chapter, tmp_path):
    folder = tmp_path / "submissions"
    classroom(folder, EXERCISES, tmp_path, names=["loops"])
    script = tmp_path / "run.py"
    out = str(tmp_path / "grades.csv")
    text = SLEEPER.format(path=sys.path, folder=str(folder), out=out)
    script.write_text(text, encoding="utf-8")
    process = subprocess.Popen([sys.executable, str(script)], start_new_session=True)
    family: list[psutil.Process] = []
    end = time.monotonic() + 60
    while time.monotonic() < end:  # a process that grades, and its answer, which loops
        family = psutil.Process(process.pid).children(recursive=True)
        answers = [p for p in family if os.getsid(p.pid) != process.pid]
        if answers and max(sum(p.cpu_times()[:2]) for p in answers) > 0.6:
            break
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(timeout=30) == 130
    _, alive = psutil.wait_procs(family, timeout=10)
    assert alive == []


def test_one_exercise_is_graded_alone(folder, tmp_path, monkeypatch):
    ran: list[str] = []
    real = grading.grade_exercise

    def counted(exercise, submission, **limits):
        ran.append(f"{submission.student}:{exercise.id}")
        return real(exercise, submission, **limits)

    monkeypatch.setattr(grading, "grade_exercise", counted)
    out = tmp_path / "grades.csv"
    first = grade(folder, out, only=["90.2"])
    code = [name for name in ran if not name.endswith("90.4")]
    assert code == [f"{name}:90.2" for name in ("exits_hard", "returns_nan", "stub")]
    assert {s.status for s in first.submissions} == {"in part"}
    whole = grade(folder, out)
    assert whole.kept == 3 and {s.status for s in whole.submissions} == {"needs manual"}
    ran.clear()
    again = grade(folder, out, only=["stub:90.1"])
    assert [name for name in ran if not name.endswith("90.4")] == ["stub:90.1"]
    assert results(again) == results(whole) and again.seed == first.seed


# ------------------------------------------------------------------------- part of the points


def check_three(answer, rng):
    x = rng.normal(size=4)
    got = answer(x)
    expect_close(got, x**2, property="it squares", hint="h")
    for shift in (100.0, 200.0):
        expect_close(answer(x + shift), (x + shift) ** 2, property="also when shifted", hint="h")
    _signs(answer, x)
    if len(x) < 4:
        fail("never", "h")


def _signs(answer, x):
    expect(
        np.all(np.asarray(answer(-x)) >= 0),
        property="squares are never negative",
        hint="h",
    )


def three(points=4.0):
    return Exercise(
        id="90.7",
        title="Squares",
        function="square",
        points=points,
        difficulty=1,
        minutes=1,
        importance=1,
        goal="g",
        hints=("a", "b", "c"),
        check=check_three,
    )


@pytest.mark.parametrize(
    ("answer", "held", "failed", "points"),
    [
        (lambda x: x**2, 3, [], 4.0),
        (lambda x: np.abs(x), 1, ["it squares", "also when shifted"], 0.0),  # not the task itself
        (lambda x: x**2 if x.max() < 50 else 0 * x, 2, ["also when shifted"], 2.5),
        (lambda x: np.zeros(3), 1, 2, 0.0),
        (lambda x: -(x**2), 0, 3, 0.0),
        (lambda x: x**2 if x.max() < 50 else 1 / 0, 1, 1, 1.25),  # the rest is not reached
        (lambda x: None, 0, 3, 0.0),
        (lambda x: (_ for _ in ()).throw(NotImplementedError), 0, ["there is an answer"], 0.0),
    ],
)
def test_a_check_goes_on_after_a_failure_and_what_is_not_reached_is_not_earned(
    answer, held, failed, points
):
    exercise = three()
    found = properties(exercise, local_answer(answer, "square"), 3)
    assert found.stated == 3
    assert len(found.held) == held
    names = [f.property for f in found.failures]
    assert names == failed if isinstance(failed, list) else len(names) == failed
    assert points_for(exercise, found) == points
    if found.failures:
        assert points_for(exercise, found) < exercise.points


def test_without_part_points_the_first_failure_is_raised():
    with pytest.raises(Exception, match="it squares"):
        model.run_check(three(), local_answer(np.abs, "square"), 3)


@pytest.mark.parametrize("id", ["01.4", "03.1", "06.2", "09.1"])
def test_of_the_books_exercises_a_reference_holds_all_and_no_wrong_answer_has_all_points(id):
    exercise = BOOK[id]
    sheets = (ROOT / "solutions").glob(f"{exercise.chapter}_*.ipynb")
    (path,) = [sheet for sheet in sheets if release.chapter_of(sheet) == exercise.chapter]
    code = parse_notebook(read_notebook(path))
    found = properties(exercise, local_answer(release.reference(exercise, code)), 2)
    assert len(found.held) == found.stated > 1 and found.failures == []
    shares = []
    for name in exercise.wrong_answers:
        wrong = local_answer(release.wrong_function(exercise, name, code))
        shares.append(points_for(exercise, properties(exercise, wrong, 2)) / exercise.points)
    assert max(shares) < 1 and min(shares) == 0


def test_part_points_stand_in_the_sheet_the_page_and_the_journal(demo_chapter, tmp_path):
    folder = tmp_path / "submissions"
    classroom(folder, EXERCISES, tmp_path, names=["stub"])
    path = folder / "stub" / "90_demo.ipynb"
    notebook = json.loads(path.read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        if "def soft_backup" in "".join(cell["source"]):
            naive = SOLUTIONS["soft_backup"].replace("q.max(axis=1)", "np.zeros(len(q))")
            cell["source"] = naive
    path.write_text(json.dumps(notebook), encoding="utf-8")
    out = tmp_path / "grades.csv"
    whole = grade(folder, out, seed=3)
    assert results(whole)["stub", "90.1"].points == 0
    part = grade(folder, out, tmp_path / "pages", partial=True)
    result = results(part)["stub", "90.1"]
    assert result.points == 1.5 and result.held == ("the value is the soft maximum over actions",)
    page = part.pages[0].read_text(encoding="utf-8")
    assert "What holds" in page and "1.5 / 3" in page
    again = grade(folder, out)  # as in the run before
    assert results(again)["stub", "90.1"] == result and again.kept == 3 and again.seed == 3
    assert results(grade(folder, out, partial=False))["stub", "90.1"].points == 0


# ------------------------------------------------------------------------------- statistics


def notebook_of(student, exercises, *results):
    submission = Submission(student, "90_demo.ipynb", None, exercises=list(exercises))
    submission.results = {e.id: r for e, r in zip(exercises, results, strict=True)}
    return submission


def test_properties_and_mistakes_are_counted_and_medians_are_right():
    soft, _, _, written = EXERCISES
    looks = "it looks as if you took the hard maximum"
    bad = "<script>alert(1)</script>"
    group = [
        notebook_of("a", [soft, written], Result(3, "ok"), Result(4, "read")),
        notebook_of("b", [soft, written], Result(0, "failed", bad, looks), Result(None, "manual")),
        notebook_of(
            "c",
            [soft, written],
            Result(1, "failed", "large values", "your code raised ValueError: =x", also=(bad,)),
            Result(None, "manual"),
        ),
        notebook_of("d", [soft, written], Result(0, "error"), Result(2, "read")),
    ]
    first, second = class_statistics(group)
    assert (first.passed, first.failed, first.median, first.mean) == (1, 2, 1, 4 / 3)
    assert first.properties == {bad: 2, "large values": 1}
    assert first.mistakes == {"you took the hard maximum": 1, "the code raised ValueError": 1}
    assert (second.passed, second.failed, second.waiting, second.median) == (1, 1, 2, 3)
    rows = list(csv.DictReader(io.StringIO(statistics_csv([first, second]))))
    (row,) = (r for r in rows if r["kind"] == "mistake" and "hard" in r["what"])
    assert row["notebooks"] == "1" and float(row["share"]) == pytest.approx(1 / 3, abs=1e-4)
    page = statistics_page([first, second], "<b>class</b>")
    assert bad not in page and "&lt;script&gt;" in page and "<b>class" not in page
    assert "2 of 3" in page and "hard maximum" in page


def test_a_class_without_results_has_a_page():
    assert class_statistics([]) == [] and "</html>" in statistics_page([])


# ------------------------------------------------------------------------------ the nursery


needs_forks = pytest.mark.skipif(not LINUX, reason="answers are forked on Linux alone")


def worker(source, **limits):
    code = parse_cells([(1, "import os, sys"), (2, source)])
    return sandbox.Worker("f", code.pieces("f"), timeout=10.0, **limits)


@needs_forks
def test_answers_are_forked_each_from_a_clean_process_in_a_place_of_its_own():
    source = (
        "def f():\n    sys.modules['numpy'].planted = 1\n    import tempfile\n"
        "    return [os.getpid(), os.path.realpath('.'), os.environ['HOME'],"
        " tempfile.gettempdir(), os.getsid(0)]"
    )
    seen = []
    for _ in range(2):
        with worker(source) as box:
            assert isinstance(box.process, Forked)
            pid, *folders, session = Answer("f", box.send)()
            assert set(folders) == {box.scratch} and pid == session == box.process.pid
            seen.append(pid)
        assert box.process.poll() is not None and not psutil.pid_exists(pid)
    assert seen[0] != seen[1]
    with worker("def f():\n    return hasattr(sys.modules['numpy'], 'planted')") as box:
        assert Answer("f", box.send)() is False


@needs_forks
def test_the_nursery_holds_no_check_and_no_open_file_of_the_grader(tmp_path):
    with (tmp_path / "secret").open("w") as secret:
        source = (
            "def f():\n    here = [n for n in sys.modules if 'exercises.chapters' in n]\n"
            "    places = [f'/proc/self/fd/{n}' for n in os.listdir('/proc/self/fd')]\n"
            "    return here, [os.readlink(p) for p in places if os.path.lexists(p)]"
        )
        with worker(source) as box:
            modules, files = Answer("f", box.send)()
    assert modules == [] and secret.name not in files
    assert not [name for name in files if name.startswith("socket")]


@needs_forks
def test_a_nursery_that_died_is_replaced_and_one_that_cannot_start_is_done_without(monkeypatch):
    with worker("def f():\n    return 1") as box:
        assert Answer("f", box.send)() == 1
    nursery = sandbox._nurseries[()]
    nursery.process.kill()
    nursery.process.wait()
    with worker("def f():\n    return 2") as box:
        assert Answer("f", box.send)() == 2 and isinstance(box.process, Forked)
    assert sandbox._nurseries[()] is not nursery

    def refuse(*arguments):
        raise OSError("no more processes")

    monkeypatch.setattr(Nursery, "fork", refuse)
    with worker("def f():\n    return 3") as box:
        assert Answer("f", box.send)() == 3 and isinstance(box.process, subprocess.Popen)


@needs_forks
@pytest.mark.parametrize(("end", "code"), [("os._exit(7)", 7), ("os.abort()", -signal.SIGABRT)])
def test_how_a_forked_answer_ended_is_known(end, code):
    with worker(f"def f():\n    {end}") as box:
        with pytest.raises(CheckFailed, match="ended before it returned"):
            Answer("f", box.send)()
        assert box.process.poll() == code
