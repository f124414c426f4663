"""The student's copy, the drift between cards and notebooks, and taking functions from cells."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time

import nbformat
import pytest
from exercises_demo import EXERCISES, SOLUTIONS, WRITTEN, solution_notebook

from irlbook import exercises
from irlbook.errors import CheckFailed, InvalidExerciseError, NotebookError
from irlbook.exercises import Edit, model, release
from irlbook.exercises.answers import load_function
from irlbook.exercises.extract import parse_cells, parse_notebook, read_notebook
from irlbook.exercises.submissions import written_answers


@pytest.fixture
def house(tmp_path, monkeypatch):
    """A solutions folder with the demo chapter, registered alone."""
    monkeypatch.setattr(model, "_REGISTRY", {e.id: e for e in EXERCISES})
    for module in (release, exercises):
        if hasattr(module, "all_exercises"):
            monkeypatch.setattr(module, "all_exercises", only_demo)
    (tmp_path / "solutions").mkdir()
    nbformat.write(solution_notebook(), tmp_path / "solutions" / "90_demo.ipynb")
    return tmp_path


def only_demo(chapter=None):
    found = model._REGISTRY.values()
    return sorted((e for e in found if chapter in (None, e.chapter)), key=lambda e: e.id)


def folders(house):
    return house / "solutions", house / "exercises"


def test_the_student_copy_holds_no_solution(house):
    (path,) = release.release(*folders(house))
    text = path.read_text(encoding="utf-8")
    assert "SOLUTION" not in text and "HIDDEN" not in text and WRITTEN not in text
    for source in SOLUTIONS.values():
        for line in source.splitlines()[1:]:
            if "###" not in line and '"""' not in line:
                assert line.strip() not in text
    copy = nbformat.read(path, as_version=4)
    nbformat.validate(copy)
    assert all(not c.outputs and c.execution_count is None for c in copy.cells if "outputs" in c)
    code = parse_notebook(copy)
    for exercise in EXERCISES[:3]:
        with pytest.raises(NotImplementedError):
            load_function(code.pieces(exercise.function), exercise.function)(None, None)
    assert '"""Soft values (S,) of q (S, A)."""' in "\n".join(c.source for c in copy.cells)


def test_nbgrader_metadata_is_whole(house):
    (path,) = release.release(*folders(house))
    copy = nbformat.read(path, as_version=4)
    meta = {c.metadata.nbgrader.grade_id: c.metadata.nbgrader for c in copy.cells if c.metadata}
    assert meta["90-1-check"] == {
        "grade": True,
        "grade_id": "90-1-check",
        "locked": True,
        "points": 3,
        "schema_version": 3,
        "solution": False,
        "task": False,
    }
    assert meta["90-4-answer"].points == 4 and meta["90-4-answer"].solution
    assert not meta["90-1-answer"].grade
    assert copy.metadata.irlbook.exercises == ["90.1", "90.2", "90.3", "90.4"]


def test_release_is_deterministic_and_touches_nothing_twice(house):
    (path,) = release.release(*folders(house))
    before = path.read_bytes(), path.stat().st_mtime_ns
    release.release(*folders(house))
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    assert release.stale(*folders(house)) == []
    assert b"\r" not in before[0] and before[0].endswith(b"}\n")


def test_verify_passes_and_sees_each_kind_of_drift(house):
    solutions, copies = folders(house)
    assert any("not what `release`" in p for p in release.verify(solutions, copies))
    release.release(solutions, copies)
    assert release.verify(solutions, copies) == []
    path = copies / "90_demo.ipynb"
    path.write_text(path.read_text(encoding="utf-8") + " ", encoding="utf-8")
    assert release.verify(solutions, copies) == [
        "exercises/90_demo.ipynb is not what `release` would write"
    ]
    release.release(solutions, copies)
    (copies / "91_gone.ipynb").write_text("{}", encoding="utf-8")
    assert "91_gone.ipynb has no solution" in release.verify(solutions, copies)[0]


@pytest.mark.parametrize(
    ("replace", "says"),
    [
        ({"title": "Renamed", "points": 2}, "not what `release` would write"),
        ({"wrong_answers": {}}, "0 wrong answers, at least 5"),
        ({"check": lambda answer, rng: answer([[0.0]], 1.0)}, "passes with seed|cannot|fails with"),
        ({"check": lambda answer, rng: None}, "the stub passes"),
        ({"reference": "gone"}, "must be defined once"),
        (
            {
                "wrong_answers": {"typo": (Edit("no such text", ""), "x")}
                | EXERCISES[0].wrong_answers
            },
            "not in the reference",
        ),
        (
            {"wrong_answers": {"other": ("def f(): pass", "x")} | EXERCISES[0].wrong_answers},
            "does not define `soft_backup`",
        ),
        (
            {"wrong_answers": {"right": (Edit("top", "top"), "x")} | EXERCISES[0].wrong_answers},
            "'right' passes with seed",
        ),
        (
            {
                "wrong_answers": {"m": (Edit(".sum(", ".mean("), "banana")}
                | EXERCISES[0].wrong_answers
            },
            "must be told 'banana'",
        ),
        ({"id": "90.6"}, "card 90.1, which does not exist"),
    ],
)
def test_verify_names_what_is_wrong_with_a_card(house, monkeypatch, replace, says):
    release.release(*folders(house))
    changed = dataclasses.replace(EXERCISES[0], **replace)
    monkeypatch.setattr(model, "_REGISTRY", {e.id: e for e in (changed, *EXERCISES[1:])})
    found = "\n".join(release.verify(*folders(house)))
    assert any(part in found for part in says.split("|"))


def test_verify_wants_enough_exercises_of_each_kind(house, monkeypatch):
    monkeypatch.setattr(model, "_REGISTRY", {EXERCISES[0].id: EXERCISES[0]})
    path = house / "solutions" / "90_demo.ipynb"
    nb = solution_notebook()
    nb.cells = nb.cells[:5]
    nbformat.write(nb, path)
    found = "\n".join(release.verify(*folders(house)))
    assert "1 exercises, at least 4" in found
    assert "no exercise of kind 'written'" in found and "'bug hunt'" in found
    path.unlink()
    assert "chapter 90 has exercises but no solution" in release.verify(*folders(house))[0]


@pytest.mark.parametrize(
    ("cell", "source", "says"),
    [
        (3, SOLUTIONS["soft_backup"].replace("### END SOLUTION", ""), "without `### END SOLUTION`"),
        (3, SOLUTIONS["soft_backup"].replace("soft_backup", "other"), "exactly one function"),
        (3, "### END SOLUTION\n" + SOLUTIONS["soft_backup"], "without `### BEGIN SOLUTION`"),
        (4, 'exercises.check("90.8", soft_backup)', "no exercise 90.8"),
        (3, "def soft_backup(q, beta):\n    return 1", "0 cells for 90.1-answer"),
        (4, "1 + 1", "0 cells for 90.1-check"),
        (2, "no card here", "no text cell has `<!-- card 90.1"),
        (2, "<!-- card 90.1 -->\n<!-- answer 90.1 -->", "no written exercise 90.1"),
    ],
)
def test_verify_names_what_is_wrong_with_a_cell(house, cell, source, says):
    nb = solution_notebook()
    nb.cells[cell].source = source
    nbformat.write(nb, house / "solutions" / "90_demo.ipynb")
    assert says in "\n".join(release.verify(*folders(house)))


def test_folders_and_names_are_checked(tmp_path):
    with pytest.raises(NotebookError, match="where are the solution notebooks"):
        release.verify(tmp_path / "nowhere", tmp_path)
    with pytest.raises(NotebookError, match="must look like 03_slug"):
        release.chapter_of(tmp_path / "soft.ipynb")


def test_a_wrong_answer_may_be_a_function_or_several_edits():
    code = parse_notebook(solution_notebook())
    edits = (Edit("/ beta", ""), Edit("+ beta *", "+"))
    exercise = dataclasses.replace(
        EXERCISES[0], wrong_answers={"function": (min, "x"), "edits": (edits, "x")}
    )
    assert release.wrong_function(exercise, "function", code) is min
    assert callable(release.wrong_function(exercise, "edits", code))
    with pytest.raises(InvalidExerciseError):
        release.wrong_function(
            dataclasses.replace(exercise, wrong_answers={"e": (Edit("zzz", ""), "x")}), "e", code
        )


# ------------------------------------------------------------------------- taking functions


def load(*cells: str, name: str = "f"):
    code = parse_cells(enumerate(cells, start=1))
    return load_function(code.pieces(name), name, code.flags)


def test_only_what_the_function_needs_is_run():
    f = load(
        "import numpy as np\nSCALE: float = 2.0\nOTHER = open('/nowhere')\nraise SystemExit",
        "%matplotlib inline\n!ls\nimport no_such_module",
        "%%writefile f.py\ndef f(x):\n    return 0",
        "def helper(x): return np.sum(x) * SCALE\nclass Unused: raise SystemExit",
        "def f(x):\n    return helper(x) + ONE\nprint(f(3) / 0)",
        "ONE = -np.pi / np.pi + 2\nshow = lambda: 1 / 0",
    )
    assert f([1, 2]) == 7.0


FORMS = {
    "timed": ["%%time\ndef f():\n    return 3"],
    "captured": ["\n%%capture out --no-stderr\ndef f():\n    return 3"],
    "with magics": [
        "%matplotlib inline\n!pip install x\nls = !ls\nt = %timeit -o 1\n?len\nlen?\n"
        "def f():\n    %time y = 1\n    # why?\n    '''Why?'''\n    return 3"
    ],
    "under another name": ["def mine():\n    return 3\nf = mine"],
    "under another name, the stub left": [
        "def mine():\n    return 3\nf = mine",
        'def f():\n    """Doc."""\n    # your code here\n    raise NotImplementedError',
    ],
    "a partial": ["from functools import partial\nf = partial(int, '3')"],
    "imports in try": [
        "try:\n    import no_such_module as m\nexcept ImportError:\n    import math as m",
        "def f():\n    return m.floor(3.5)",
    ],
    "a helper in try": [
        "try:\n    from no_such import njit\nexcept ImportError:\n    def njit(g):\n"
        "        return g\n@njit\ndef f():\n    return 3"
    ],
    "a constant changed": ["K = 1\nK += 1\ndef f():\n    return K + 1", "K = K"],
    "an entry changed": ["D = {'a': 1}\nD['a'] += 2\ndef f():\n    return D['a']"],
    "constants from constants": [
        "import numpy as np\nA = ('up', 'down')\nN = len(A)\nP = np.full(N, 1 / N)",
        "W = {a: k for k, a in enumerate(A)}\nT = np.arange(6).reshape(2, 3)[0] if N > 1 else 0",
        "def f():\n    return int(P.sum() * 2 + W['down'] + T[0])",
    ],
    "local names of demos": [
        "data = open('/nowhere')\nimport no_such_module\nq = 1 / 0\nx, y = 1 / 0, 2",
        "def f():\n    data, x = 1, 2\n    q = [no_such_module for no_such_module in (0,)]\n"
        "    return data + x + q[0]",
    ],
}


@pytest.mark.parametrize("form", FORMS)
def test_a_right_answer_in_another_form_is_taken(form):
    assert load(*FORMS[form])() == 3


def test_a_cell_that_the_notebook_does_not_run_is_named():
    with pytest.raises(CheckFailed, match="cell 1: it begins with %%writefile and is not run"):
        parse_cells([(1, "%%writefile a.py\ndef f(): pass")]).pieces("f")


MB = 10**6
SLOW = {  # each was quadratic or worse once
    "line breaks": ["\n" * MB, "def g(:"],
    "names and line breaks": ["f\n" * (MB // 4) + "def g(:"],
    "a chain of names": ["".join(f"a{n} = a{n + 1}\n" for n in range(50_000)), "def f(): a0"],
    "spaces before a magic": ["def g(:\n" + " " * MB + "x"],
    "question marks": ["def g(:\n" + "? " * (MB // 2)],
    "equals signs": ["def g(:\n" + "a = " * (MB // 4)],
    "finally in finally": [
        "def f():\n" + "".join(f"{'  ' * n}  try: pass\n{'  ' * n}  finally:\n" for n in range(40))
        + "  " * 41 + "pass"
    ],
    "functions on one line": ["; ".join(["f = lambda: 0"] * 30_000)],
    "functions after the end of a text": ['x = """\n"""; ' + "; ".join(["g = lambda: 0"] * 30_000)],
    "nested functions": ["f = " + "lambda: " * 2000 + "0"],
}  # fmt: skip


@pytest.mark.parametrize("attack", SLOW)
def test_reading_a_notebook_takes_time_in_proportion_to_it(attack):
    begin = time.process_time()
    with contextlib.suppress(CheckFailed):
        parse_cells(enumerate(SLOW[attack], start=1)).pieces("f")
    assert time.process_time() - begin < 20


@pytest.mark.parametrize(
    "text", ["<!--" * (MB // 4), "<!-- card 00." + "1" * MB, "<!-- answer " * (MB // 12)]
)
def test_reading_a_text_takes_time_in_proportion_to_it(text):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(text)])
    begin = time.process_time()
    written_answers(notebook, EXERCISES)
    assert time.process_time() - begin < 5


def test_what_a_notebook_showed_costs_nothing(tmp_path):
    path = tmp_path / "shown.ipynb"
    output = {"output_type": "stream", "name": "stdout", "text": "x"}
    cell = {"cell_type": "code", "metadata": {}, "source": "1", "execution_count": None}
    cells = [{**cell, "outputs": [output] * 300_000}]
    book = {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 4}
    path.write_text(json.dumps(book), encoding="utf-8")
    begin = time.process_time()
    (read,) = read_notebook(path, outputs=False).cells
    assert read.source == "1" and read.outputs == [] and time.process_time() - begin < 5


def test_a_notebook_of_very_many_cells_is_refused_at_once(tmp_path):
    path = tmp_path / "many.ipynb"
    cell = '{"cell_type":"raw","metadata":{},"source":""}'
    cells = ",".join([cell] * 500_000)
    path.write_text(f'{{"cells":[{cells}],"metadata":{{}},"nbformat":4,"nbformat_minor":4}}')
    begin = time.process_time()
    with pytest.raises(NotebookError, match="more than 20000 cells"):
        read_notebook(path)
    assert time.process_time() - begin < 5


def test_future_flags_lambdas_and_star_imports_count():
    f = load("from __future__ import annotations\nfrom math import *\nf = lambda x: sqrt(x)")
    assert f(4) == 2
    code = parse_cells([(1, "from __future__ import annotations"), (2, "def f(x: NoSuch): pass")])
    load_function(code.pieces("f"), "f", code.flags)


@pytest.mark.parametrize(
    ("cells", "says"),
    [
        (["def f(): pass", "1", "def f(): return 1"], "cell 1 and cell 3"),
        (["def f(): pass\ndef f(): pass", "f = lambda: 1"], "cell 1, cell 1 and cell 2"),
        (["def g(): pass"], "no code cell defines it"),
        (["x = 1", "def f(:\n  pass"], r"cell 2: line 1"),
        (["if True:\n    def f(): pass"], "no code cell defines it"),
        (["def f():\n    return '\0'"], "cell 1"),
        (["def f(): return " + "(" * 5000], "cell 1"),
        (["def f(): return " + "-" * 200_000 + "1"], "cell 1"),
    ],
)
def test_a_missing_or_double_definition_is_told_with_its_cells(cells, says):
    with pytest.raises(CheckFailed, match=says):
        parse_cells(enumerate(cells, start=1)).pieces("f")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "damaged"),
        (b"\xff\xfe\x00", "damaged"),
        (b"[]", "damaged"),
        (b'{"cells": 3, "nbformat": 4}', "damaged"),
        (b"[" * 100_000, "damaged"),
        (b'{"cells":[{"cell_type":"code","source":7}],"nbformat":4,"metadata":{}}', "damaged"),
    ],
)
def test_a_file_that_is_no_notebook_is_told(tmp_path, data, says):
    path = tmp_path / "x.ipynb"
    path.write_bytes(data)
    with pytest.raises(NotebookError, match=says):
        read_notebook(path)


def test_links_folders_and_huge_files_are_refused(tmp_path):
    with pytest.raises(NotebookError, match="not a file"):
        read_notebook(tmp_path)
    big = tmp_path / "big.ipynb"
    with big.open("wb") as file:
        file.truncate(40 * 2**20)
    with pytest.raises(NotebookError, match="too large"):
        read_notebook(big)
    link = tmp_path / "link.ipynb"
    try:
        link.symlink_to(big)
    except OSError:
        pytest.skip("no symbolic links here")
    with pytest.raises(NotebookError, match="symbolic link"):
        read_notebook(link)
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("x = 1\n" * 300_000)])
    with pytest.raises(NotebookError, match="a million characters"):
        parse_notebook(nb)


def test_edits_and_cards_are_data():
    assert Edit("a", "b") == Edit("a", "b")
