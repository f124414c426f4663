"""The grader against a classroom of accidents and mischief: each loses only its own points."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import re
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import nbformat
import numpy as np
import psutil
import pytest
from exercises_classroom import VILLAINS, classroom
from exercises_demo import EXERCISES, SOLUTIONS, WRITTEN

import irlbook
from irlbook.errors import (
    CheckFailed,
    ContainerError,
    NotebookError,
    RootError,
    UnknownExerciseError,
)
from irlbook.exercises import (
    container,
    feedback,
    grading,
    model,
    sandbox,
    submissions,
    tables,
)
from irlbook.exercises.answers import Answer
from irlbook.exercises.extract import parse_cells
from irlbook.exercises.sandbox import Worker
from irlbook.exercises.submissions import Result
from irlbook.mdp import TabularMDP

LINUX = sys.platform.startswith("linux")
grade = partial(grading.grade, allow_root=True)  # the tests may run as root


@pytest.fixture(scope="module")
def demo_chapter():
    saved = dict(model._REGISTRY)
    model._REGISTRY.update({e.id: e for e in EXERCISES if e.id != "90.3"})  # one fewer to run
    yield
    model._REGISTRY.clear()
    model._REGISTRY.update(saved)


@pytest.fixture(scope="module")
def graded(demo_chapter, tmp_path_factory):
    """The whole classroom, graded once."""
    home = tmp_path_factory.mktemp("graded")
    victim = home / "victim"
    victim.mkdir()
    (victim / "keep.txt").write_text("precious", encoding="utf-8")
    folder = home / "submissions"
    folder.mkdir()
    classroom(folder, EXERCISES, victim)
    try:
        (folder / "linked_90_demo.ipynb").symlink_to(folder / "good" / "90_demo.ipynb")
        (folder / "linked_folder").symlink_to(folder / "good", target_is_directory=True)
    except OSError:
        pass
    seen: list[tuple[int, int, str]] = []
    summary = grade(
        folder,
        home / "out" / "grades.csv",
        home / "feedback",
        seed=11,
        timeout=4.0,
        memory_mb=400,
        progress=lambda *step: seen.append(step),
    )
    with summary.out_csv.open(encoding="utf-8-sig", newline="") as file:
        rows = {row["student"]: row for row in csv.DictReader(file)}
    pages = {path.stem: path.read_text(encoding="utf-8") for path in summary.pages}
    return home, summary, rows, pages, seen


@pytest.mark.parametrize("name", VILLAINS)
def test_a_villain_loses_only_its_own_points(graded, name):
    _, summary, rows, pages, _ = graded
    row = rows[name]
    assert (row["90.1"], row["90.2"]) == ("0", "2"), row
    assert row["points"] == "2" and row["max"] == "9"
    (submission,) = (s for s in summary.submissions if s.student == name)
    result = submission.results["90.1"]
    said = f"{result.property}\n{result.detail}\n{result.hint}"
    assert result.status == "failed"
    if name == "reads_others" and not LINUX:
        return
    assert re.search(VILLAINS[name][1], said), said
    assert name in pages


def test_nothing_outside_the_scratch_folder_was_touched(graded):
    home = graded[0]
    assert (home / "victim" / "keep.txt").read_text(encoding="utf-8") == "precious"
    assert not list(home.rglob("*.tmp"))


@pytest.mark.parametrize("name", ["good", "prints", "nbgrader_style", "ann", "'=cmd!A1"])
def test_the_good_get_their_points_in_every_layout(graded, name):
    row = graded[2][name]
    assert (row["90.1"], row["90.2"]) == ("3", "2")
    assert row["90.4"] == "" and row["needs_manual"] == "90.4" and row["status"] == "needs manual"


def test_megabytes_of_prints_are_mentioned(graded):
    assert re.search(r"printed 1\d MB", graded[3]["prints"])


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("corrupt", "damaged or no Jupyter notebook"),
        ("foreign", "not an exercise notebook of this book"),
        ("odd", "damaged or no Jupyter notebook"),
        ("empty", "no notebook in the folder"),
        ("huge", "too large"),
        ("linked", "symbolic link"),
        ("linked_folder", "symbolic link"),
    ],
)
def test_what_cannot_be_graded_gets_a_row_and_a_message(graded, name, says):
    home, _, rows, pages, _ = graded
    if name.startswith("linked") and not (home / "submissions" / name).is_symlink():
        if not (home / "submissions" / f"{name}_90_demo.ipynb").is_symlink():
            pytest.skip("no symbolic links here")
    row = rows[name]
    assert row["status"] == "not graded" and says in row["message"] and row["points"] == "0"
    assert says in pages[name]


def test_the_summary_counts_and_the_progress_reaches_the_end(graded):
    _, summary, _, _, seen = graded
    text = str(summary)
    assert "seed 11" in text and "could not be graded" in text and "ignored: notes.txt" in text
    assert seen[-1][0] == seen[-1][1] == len(seen) - 1


def test_feedback_never_shows_the_answer(graded):
    pages = graded[3]
    secrets = [line.strip() for s in SOLUTIONS.values() for line in s.splitlines()[1:]]
    secrets = [s for s in secrets if "###" not in s and '"""' not in s and len(s) > 8]
    secrets += [WRITTEN, "np.exp(q / beta).sum", "expect_close", "check_soft_backup", "Traceback"]
    secrets += [c.text for e in EXERCISES for c in e.rubric]
    for name, page in pages.items():
        for secret in secrets:
            assert secret not in page, (name, secret)


def test_feedback_is_escaped_and_self_contained(graded):
    page = graded[3]["scripts"]
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "<script" not in page and "http" not in page and "src=" not in page


def test_the_sheet_of_written_answers_has_the_rubric(graded):
    _, summary, _, _, _ = graded
    with summary.written_csv.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    good = [r for r in rows if r["student"] == "good"]
    assert [r["criterion"] for r in good] == [c.text for c in EXERCISES[3].rubric]
    assert good[0]["answer"] == "Information has a price." and good[0]["points"] == ""
    assert [r["answer"] for r in rows if r["student"] == "'=cmd!A1"] == ["'=1+1"] * 2
    assert [r["answer"] for r in rows if r["student"] == "ann"][0] == "(no answer found)"


def test_no_cell_of_a_table_is_a_formula(graded):
    for path in (graded[1].out_csv, graded[1].written_csv):
        with path.open(encoding="utf-8-sig", newline="") as file:
            for row in csv.reader(file):
                assert not any(cell.startswith(("=", "+", "-", "@")) for cell in row)


# ------------------------------------------------------------------ journal, marks, settings


@pytest.fixture
def small(demo_chapter, tmp_path):
    """Two submissions, to grade again and again."""
    folder = tmp_path / "submissions"
    folder.mkdir()
    classroom(folder, EXERCISES, tmp_path, names=["returns_text", "stub"])
    return folder, tmp_path / "grades.csv"


@pytest.fixture
def instant(monkeypatch):
    """Grading without processes: counts the calls and passes everything."""
    calls: list[tuple[str, str, int]] = []

    def pass_all(exercise, submission, *, seed, **limits):
        calls.append((submission.student, exercise.id, seed))
        if exercise.kind == "written":
            return Result(None, "manual")
        return Result(exercise.points, "ok")

    monkeypatch.setattr(grading, "grade_exercise", pass_all)
    return calls


def ran(calls: list[tuple[str, str, int]]) -> list[tuple[str, str, int]]:
    """The calls that ran code: a written answer is no work."""
    return [call for call in calls if call[1] != "90.4"]


def test_an_interrupted_run_goes_on_where_it_was(small, instant):
    def interrupt(done, total, label):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        grade(*small, progress=interrupt)
    assert not small[1].exists()
    journal = small[1].with_name("grades.csv.journal")
    assert len(journal.read_text(encoding="utf-8").splitlines()) == 2 + 2  # the written one waits
    with journal.open("a", encoding="utf-8") as file:
        file.write('{"key": "torn')
    before = len(instant)
    summary = grade(*small, progress=False)
    done = [id for _, id, _ in instant[before:]]
    assert done == ["90.4", "90.1", "90.2", "90.4"] and len({seed for *_, seed in instant}) == 1
    assert summary.seed == instant[0][2]


def test_another_seed_a_changed_notebook_or_other_limits_start_afresh(small, instant):
    def interrupt(done, total, label):
        if done == 4:
            raise KeyboardInterrupt

    for again, wanted in (({"seed": 2}, 4), ({"seed": 1, "timeout": 3.0}, 4), ({"seed": 1}, 1)):
        small[1].with_name("grades.csv.journal").unlink(missing_ok=True)
        with pytest.raises(KeyboardInterrupt):
            grade(*small, seed=1, progress=interrupt)
        instant.clear()
        grade(*small, progress=False, **again)
        assert len(ran(instant)) == wanted
    with pytest.raises(KeyboardInterrupt):
        grade(*small, seed=1, progress=interrupt)
    path = small[0] / "returns_text" / "90_demo.ipynb"
    path.write_text(path.read_text(encoding="utf-8").replace("forty-two", "x"), encoding="utf-8")
    instant.clear()
    grade(*small, seed=1, progress=False)
    assert [student for student, *_ in ran(instant)] == ["returns_text"] * 2


def test_points_given_by_hand_are_kept_and_counted(small, instant):
    summary = grade(*small, progress=False)
    text = summary.written_csv.read_text(encoding="utf-8")
    start = "stub,90_demo.ipynb,90.4,names the price of information,2,"
    filled = text.replace(f"{start},", f"{start}1.5,")
    summary.written_csv.write_text(filled, encoding="utf-8")
    again = grade(*small, progress=False)
    assert {s.student: s.status for s in again.submissions}["stub"] == "needs manual"
    lines = filled.splitlines()
    filled = "\n".join(
        re.sub(r",2,,", ",2,2,", line) if line.startswith("stub") else line for line in lines
    )
    summary.written_csv.write_text(filled, encoding="utf-8")
    again = grade(*small, progress=False)
    (stub,) = (s for s in again.submissions if s.student == "stub")
    assert stub.results["90.4"].points == 3.5 and stub.status == "graded" and stub.points == 8.5
    assert again.kept == 4 and len({seed for *_, seed in instant}) == 1  # marking re-draws nothing
    assert "1.5" in again.written_csv.read_text(encoding="utf-8")


def test_chapters_can_be_chosen_and_two_notebooks_are_pointed_out(small, instant):
    folder, out = small
    copy = folder / "stub" / "90_demo (1).ipynb"
    copy.write_bytes((folder / "stub" / "90_demo.ipynb").read_bytes())
    summary = grade(folder, out, progress=False)
    assert sum("more than one notebook" in s.message for s in summary.submissions) == 2
    summary = grade(folder, out, chapters=["3"], progress=False)
    assert len(summary.ignored) == 3  # and nobody vanishes
    said = {s.student: s.message for s in summary.submissions}
    assert said["returns_text"] == "nothing for chapter 03; handed in: 90_demo.ipynb"
    assert "90_demo (1).ipynb" in said["stub"] and len(said) == 2
    with pytest.raises(NotebookError, match="where are the submissions"):
        grade(folder / "nowhere", out)


def test_a_bar_is_shown_when_asked_for(small, instant, capsys):
    grade(*small, progress=True)
    assert "6/6" in capsys.readouterr().err


def test_the_graders_own_failure_gives_no_points_and_is_loud(small, monkeypatch):
    def broken(*args, **kwargs):
        raise OSError("no more processes")

    monkeypatch.setattr("subprocess.Popen", broken)
    monkeypatch.setattr(sandbox, "_nurseries", {})
    summary = grade(*small, progress=False)
    assert all(s.points == 0 and s.status == "grader error" for s in summary.submissions)
    assert "grade them again" in str(summary)
    assert "no more processes" in summary.out_csv.read_text(encoding="utf-8")


def test_answers_written_below_the_card_or_without_marks_are_found():
    cells = [
        nbformat.v4.new_markdown_cell("<!-- card 90.4 -->\nExplain."),
        nbformat.v4.new_markdown_cell("<!-- answer 90.4 -->\nYour answer here."),
        nbformat.v4.new_markdown_cell("It has a price."),
        nbformat.v4.new_markdown_cell("<!-- card 90.1 -->\nNext."),
        nbformat.v4.new_markdown_cell("Not this."),
    ]
    notebook = nbformat.v4.new_notebook(cells=cells)
    assert submissions.written_answers(notebook, EXERCISES) == {"90.4": "It has a price."}
    meta = {"nbgrader": {"grade_id": "90-4-answer"}}
    cells = [nbformat.v4.new_markdown_cell("Bare.", metadata=meta)]
    notebook = nbformat.v4.new_notebook(cells=cells)
    assert submissions.written_answers(notebook, EXERCISES) == {"90.4": "Bare."}


def test_file_names_are_safe_and_differ():
    taken: set[str] = set()
    names = [feedback.file_name(s, taken) for s in ("Ann", "ann", "../../etc", "con", "", "é b")]
    assert names[0] == "Ann.html" and len({n.casefold() for n in names}) == len(names)
    assert all(re.fullmatch(r"[\w.-]+\.html", n) and not n.startswith(".") for n in names)


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "x.csv"
    tables.write_atomically(path, "old")

    def fail(*args):
        raise OSError

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError):
        tables.write_atomically(path, "new")
    assert path.read_text(encoding="utf-8") == "old" and list(tmp_path.iterdir()) == [path]


# --------------------------------------------------------------------------------- one worker


def call(source: str, *args, **limits):
    code = parse_cells([(1, "import numpy as np\nimport os"), (2, source)])
    limits = {"timeout": 5.0, "memory_mb": 400, **limits}
    with Worker("f", code.pieces("f"), **limits) as worker:
        value = Answer("f", worker.send)(*args)
    assert not Path(worker.scratch).exists() and worker.process.poll() is not None
    return value


def test_an_answer_may_use_its_scratch_folder():
    source = (
        "def f():\n    import tempfile\n    from pathlib import Path\n"
        "    with tempfile.TemporaryDirectory() as t:\n        Path(t, 'a').write_text('x')\n"
        "    open('b', 'w').write('hi')\n    os.rename('b', 'c')\n    os.chmod('c', 0)\n"
        "    os.mkdir('d', 0)\n    return sorted(os.listdir('.')), os.path.realpath('.')"
    )
    names, folder = call(source)
    assert names == ["c", "d"] and folder != os.path.realpath(".")


def test_an_answer_sees_no_environment_and_no_input(monkeypatch):
    monkeypatch.setenv("SECRET_TOKEN", "123")
    assert "SECRET_TOKEN" not in call("def f():\n    return dict(os.environ)")
    with pytest.raises(CheckFailed, match="EOFError"):
        call("def f():\n    return input()")


def test_the_line_of_the_students_own_code_is_named():
    with pytest.raises(CheckFailed, match=r"cell 2, line 2: `return g\(x\)`|cell 2, line 5"):
        call("def f(x):\n    return g(x)\n\ndef g(x):\n    return np.linalg.inv(x)", [[0.0]])


def test_a_failed_worker_stays_failed():
    code = parse_cells([(1, "import os\ndef f(): os._exit(3)")])
    with Worker("f", code.pieces("f")) as worker:
        answer = Answer("f", worker.send)
        for _ in range(2):
            with pytest.raises(CheckFailed, match="exit code 3"):
                answer()


def test_time_is_counted_over_all_calls():
    code = parse_cells([(1, "import time\ndef f(s): time.sleep(s)")])
    with Worker("f", code.pieces("f"), timeout=2.0) as worker:
        answer = Answer("f", worker.send)
        answer(1.2)
        with pytest.raises(CheckFailed, match="finishes in 2 seconds"):
            answer(1.2)


def test_memory_is_watched_from_outside_too(monkeypatch):
    code = parse_cells([(1, "def f():\n    x = bytearray(10**8)\n    while True: pass")])
    with Worker("f", code.pieces("f"), memory_mb=300) as worker:
        worker.memory_mb = 50  # the child's own limit stays at 300
        with pytest.raises(CheckFailed, match="needs less than 50 MB"):
            Answer("f", worker.send)()


def test_children_of_an_answer_die_with_it():
    if not LINUX:
        pytest.skip("forks by way of ctypes, past the audit hook")
    source = (
        "import ctypes, os, time\ndef f():\n    pid = ctypes.CDLL(None).fork()\n"
        "    if pid == 0:\n        time.sleep(60)\n    return pid"
    )
    code = parse_cells([(1, source)])
    with Worker("f", code.pieces("f")) as worker:
        if not worker.landlock:
            pytest.skip("ctypes is refused here")
        pid = Answer("f", worker.send)()
        assert psutil.pid_exists(pid)
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_the_kernel_refuses_what_slips_past_the_audit_hook(tmp_path):
    keep = tmp_path / "keep.txt"
    keep.write_text("precious", encoding="utf-8")
    source = (
        "import ctypes\ndef f(path):\n    c, path = ctypes.CDLL(None), path.encode()\n"
        "    return [c.unlink(path), c.open(path, 1), c.kill(os.getppid(), 0), c.system(b'true')]"
    )
    code = parse_cells([(1, "import os"), (2, source)])
    with Worker("f", code.pieces("f")) as worker:
        if not worker.landlock:
            pytest.skip("this system has no Landlock")
        removed, opened, _, shell = Answer("f", worker.send)(str(keep))
    assert removed == -1 and opened == -1 and shell != 0 and keep.exists()


def bubblewrap_works() -> bool:
    try:
        container.find_bubblewrap()
    except ContainerError:
        return False
    return True


BOXES = [
    pytest.param({}, id="plain"),
    pytest.param(
        {"bubblewrap": True},
        id="bubblewrap",
        marks=pytest.mark.skipif(not bubblewrap_works(), reason="no bubblewrap here"),
    ),
]
CHECKS = str(Path(irlbook.__file__).parent / "exercises" / "chapters" / "ch03.py")
SOLUTION = str(min((Path(irlbook.__file__).parents[1] / "solutions").glob("03_*.ipynb")))


@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize("path", [CHECKS, SOLUTION])
def test_an_answer_cannot_read_the_checks_or_the_solutions(box, path):
    reads = {
        "opened": "return open(p).read()",
        "imported": "from irlbook.exercises.chapters import ch03\n    return str(ch03)",
        "asked": "from irlbook.exercises import get\n    return str(get('03.1').check)",
    }
    for body in reads.values():
        with pytest.raises(CheckFailed, match="(Permission|Import|UnknownExercise|NotFound)Error"):
            call(f"def f(p):\n    {body}", path, **box)


@pytest.mark.parametrize("box", BOXES)
def test_the_kernel_keeps_the_checks_from_an_answer_too(box):
    if not LINUX:
        pytest.skip("Landlock is Linux's")
    source = "import ctypes\ndef f(p):\n    return ctypes.CDLL(None).open(p.encode(), 0)"
    code = parse_cells([(1, source)])
    with Worker("f", code.pieces("f"), **box) as worker:
        if not worker.landlock:
            pytest.skip("this system has no Landlock")
        assert Answer("f", worker.send)(CHECKS) == -1
        assert Answer("f", worker.send)(json.__file__) > 0


def test_the_worker_runs_the_same_copy_of_the_library():
    source = "import irlbook\ndef f():\n    return irlbook.__file__"
    assert call(source) == irlbook.__file__


@pytest.mark.parametrize("box", BOXES)
def test_a_scratch_folder_goes_however_deep_it_is(box):
    source = (
        "def f():\n    for name in ('a', 'b'):\n        os.chdir(os.environ['HOME'])\n"
        "        for n in range(1100):\n            os.mkdir(name)\n            os.chdir(name)\n"
        "            open('file', 'w').close()\n    os.symlink(os.path.realpath('..'), 'link')\n"
        "    os.chdir('..')\n    os.chmod(name, 0)\n    return n"
    )
    assert call(source, timeout=60, **box) == 1099


def test_removing_a_scratch_folder_follows_no_link(tmp_path):
    keep = tmp_path / "keep"
    (keep / "inner").mkdir(parents=True)
    (keep / "file").write_text("precious", encoding="utf-8")
    scratch = tmp_path / "scratch"
    (scratch / "sub").mkdir(parents=True)
    try:
        for place in (scratch, scratch / "sub"):
            (place / "link").symlink_to(keep, target_is_directory=True)
    except OSError:
        pytest.skip("no symbolic links here")
    sandbox._remove(str(scratch))
    assert not scratch.exists() and (keep / "inner").is_dir() and (keep / "file").exists()


@pytest.mark.parametrize("box", BOXES)
def test_what_leaves_the_family_of_an_answer_ends_with_it(box):
    if not LINUX:
        pytest.skip("forks by way of ctypes, past the audit hook")
    source = (
        "import ctypes, os, time\ndef f():\n    c = ctypes.CDLL(None)\n    if c.fork() == 0:\n"
        "        c.setsid()\n        if c.fork() == 0:\n            c.setsid()\n"
        "            time.sleep(60)\n        os._exit(0)\n    time.sleep(0.3)\n    return 1"
    )
    code = parse_cells([(1, source)])
    with Worker("f", code.pieces("f"), **box) as worker:
        if not worker.landlock:
            pytest.skip("ctypes is refused here")
        scratch = worker.scratch
        assert Answer("f", worker.send)() == 1

    def lives(process: psutil.Process) -> bool:
        with contextlib.suppress(psutil.Error):
            return process.status() != psutil.STATUS_ZOMBIE and process.cwd() == scratch
        return False

    assert not any(map(lives, psutil.process_iter()))


def test_the_command_line_of_an_engine_lets_nothing_out(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    out = tmp_path / "out" / "grades.csv"
    with pytest.raises(NotebookError, match="where are the submissions"):
        container.engine_command("docker", tmp_path / "in", out, tmp_path / "pages")
    (tmp_path / "in").mkdir()
    command = container.engine_command("docker", tmp_path / "in", out, tmp_path / "pages", ["-x"])
    text = " ".join(command)
    for part in ("run --rm", "--network none", "--read-only", "--cap-drop ALL", "--memory 6144m"):
        assert part in text
    assert f"{tmp_path / 'in'}:/submissions:ro" in command and command[-1] == "-x"
    writable = [w for w in command if w.startswith(str(tmp_path)) and not w.endswith(":ro")]
    assert writable == [f"{out.parent}:/out", f"{tmp_path / 'pages'}:/feedback"]
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(ContainerError, match="podman is not installed"):
        container.engine_command("podman", tmp_path, out, tmp_path)
    with pytest.raises(ContainerError, match="apt install bubblewrap"):
        container.find_bubblewrap()


def test_a_container_that_the_kernel_refuses_is_told(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    refused = subprocess.CompletedProcess([], 1, "", "bwrap: No permissions to create namespace\n")
    monkeypatch.setattr("subprocess.run", lambda *a, **k: refused)
    with pytest.raises(ContainerError, match="No permissions to create namespace"):
        container.find_bubblewrap()


@pytest.mark.parametrize("box", BOXES[1:])
def test_a_class_is_graded_in_bubblewrap(small, box):
    summary = grading.grade(*small, progress=False, timeout=10, **box)  # also where root would not
    assert {s.student: s.points for s in summary.submissions} == {"returns_text": 2, "stub": 2}


@pytest.mark.parametrize(
    "source",
    [
        "def f(p):\n    open(p, 'w')",
        "def f(p):\n    os.remove(p)",
        "def f(p):\n    os.open(os.path.dirname(p), os.O_RDONLY)",
        "def f(p):\n    os.rename(p, 'mine')",
        "def f(p):\n    os.truncate(p, 0)",
        "def f(p):\n    import ctypes\n    ctypes.CDLL(None).unlink(p.encode())",
        "def f(p):\n    import shutil\n    shutil.rmtree(os.path.dirname(p))",
        "def f(p):\n    os.symlink(p, 'link')\n    open('link', 'w')",
        "def f(p):\n    return open(p).read()",
    ],
)
def test_the_audit_hook_alone_refuses_the_same(tmp_path, source):
    keep = tmp_path / "keep.txt"
    keep.write_text("precious", encoding="utf-8")
    with pytest.raises(CheckFailed, match="PermissionError"):
        call(source, str(keep), landlock=False, hidden=[tmp_path])
    assert keep.read_text(encoding="utf-8") == "precious"


def test_other_submissions_stay_hidden_where_python_itself_may_read():
    folder = Path(json.__file__).parent  # as if the class handed in below the Python installation
    source = "def f(p):\n    return len(open(p).read())"
    assert call(source, json.__file__) > 0
    with pytest.raises(CheckFailed, match="may not read"):
        call(source, json.__file__, hidden=[folder])


def test_the_audit_hook_alone_lets_worlds_and_files_of_its_own_pass():
    world = TabularMDP.create(np.full((2, 2, 2), 0.5), np.zeros((2, 2)))
    source = (
        "def f(mdp):\n    open('own', 'w').write('1')\n    print(1, file=open(os.devnull, 'w'))\n"
        "    return mdp.transitions.sum()"
    )
    assert call(source, world, landlock=False) == 4.0
    assert call(source, world) == 4.0


def test_the_feedback_folder_is_not_taken_for_a_student(small, instant):
    folder, out = small
    for _ in range(2):
        summary = grade(folder, out, folder / "feedback", progress=False)
    assert {s.student for s in summary.submissions} == {"returns_text", "stub"}


def test_threads_are_not_left_behind():
    for _ in range(3):
        call("def f():\n    return 1")
    ours = [t for t in threading.enumerate() if "_talk" in t.name or "_listen" in t.name]
    for thread in ours:
        thread.join(timeout=2)
    assert not any(thread.is_alive() for thread in ours)


def test_journal_ignores_what_is_not_a_journal(tmp_path):
    path = tmp_path / "j"
    path.write_text("[1]\nnot json\n", encoding="utf-8")
    journal = grading.Journal(path, 5)
    assert journal.seed == 5 and journal.done == {} and journal.timeout == 20.0
    assert json.loads(path.read_text(encoding="utf-8").splitlines()[0])["seed"] == 5


def test_only_what_is_named_is_graded_anew(small, instant):
    first = grade(*small, progress=False)
    for wanted, calls in (
        (["90.1"], {("returns_text", "90.1"), ("stub", "90.1")}),
        (["stub:90.2"], {("stub", "90.2")}),
        ([], set()),
    ):
        instant.clear()
        again = grade(*small, progress=False, regrade=wanted)
        assert {call[:2] for call in ran(instant)} == calls and again.seed == first.seed
    with pytest.raises(UnknownExerciseError, match="of 'nobody' was handed in"):
        grade(*small, progress=False, regrade=["nobody:90.1"])
    instant.clear()
    other = grade(*small, progress=False, new_seed=True)
    assert len(ran(instant)) == 4 and other.seed != first.seed


def test_a_moved_folder_and_a_changed_written_answer_re_draw_nothing(small, instant):
    folder, out = small
    grade(folder, out, progress=False, timeout=7)
    instant.clear()
    moved = folder.rename(folder.with_name("elsewhere"))
    path = moved / "stub" / "90_demo.ipynb"
    text = path.read_text(encoding="utf-8").replace("Your answer here.", "A price.")
    path.write_text(text, encoding="utf-8")
    summary = grade(moved, out, progress=False)  # the limits of the first run hold on
    assert ran(instant) == [] and summary.kept == 4


def test_answers_do_not_run_as_root_unless_that_is_allowed(small, instant, monkeypatch):
    monkeypatch.setattr("irlbook.exercises.sandbox.would_run_as_root", lambda: True)
    with pytest.raises(RootError, match="--allow-root"):
        grading.grade(*small, progress=False)
    assert instant == [] and not small[1].exists()
    assert "WARNING: the answers ran as root" in str(grade(*small, progress=False))


def test_everything_handed_in_has_a_row_or_is_named(demo_chapter, tmp_path, instant):
    folder = tmp_path / "submissions"
    classroom(folder, EXERCISES, tmp_path, names=["stub"])
    for name in (".ann", "__bob", "carl/.mine", "dora/a/b/c/d"):
        (folder / name).mkdir(parents=True)
        (folder / name / "90_demo.ipynb").write_bytes(
            (folder / "stub" / "90_demo.ipynb").read_bytes()
        )
    (folder / "__MACOSX").mkdir()
    (folder / "stub" / ".ipynb_checkpoints").mkdir()
    (folder / "stub" / "._90_demo.ipynb").write_bytes(b"\0")
    (folder / "EVA_90_DEMO.IPYNB").write_bytes((folder / "stub" / "90_demo.ipynb").read_bytes())
    summary = grade(folder, tmp_path / "g.csv", progress=False)
    rows = {s.student: s.message for s in summary.submissions}
    assert set(rows) == {"stub", ".ann", "__bob", "carl", "dora", "EVA"}
    assert rows["carl"] == rows[".ann"] == rows["EVA"] == "" and "no notebook" in rows["dora"]
    left = {"__MACOSX", "stub/.ipynb_checkpoints", "stub/._90_demo.ipynb", "dora/a/b/c"}
    assert set(summary.ignored) == left


def test_last_weeks_sheet_under_this_weeks_name_is_named_and_earns_nothing(small, instant):
    folder, out = small
    notebook = folder / "stub" / "90_demo.ipynb"
    (folder / "late").mkdir()
    (folder / "late" / "03_maxent.ipynb").write_bytes(notebook.read_bytes())
    (folder / "other" / "03_maxent").mkdir(parents=True)  # the assignment's folder says so
    (folder / "other" / "03_maxent" / "mine.ipynb").write_bytes(notebook.read_bytes())
    summary = grade(folder, out, progress=False)
    for student in ("late", "other"):
        (row,) = (s for s in summary.submissions if s.student == student)
        assert row.points == 0 and row.status == "not graded"
        assert "handed in for chapter 03" in row.message and "of chapter 90" in row.message
