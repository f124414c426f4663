"""Submissions that go wrong in every way we could think of, for the test of the grader."""

from __future__ import annotations

import json
from pathlib import Path

import nbformat
from exercises_demo import SOLUTIONS, solution_notebook

from irlbook.exercises.release import stamp, student_copy

HEAD = "def soft_backup(q, beta):\n    "
BOLTZMANN = SOLUTIONS["boltzmann"]

# name -> (code of soft_backup, regex that its message must match); boltzmann is right in each
VILLAINS = {
    "loops": (HEAD + "while True: pass", r"finishes in .* seconds"),
    "hogs": (HEAD + "x = []\n    while True: x.append(bytearray(10**7))", "memory"),
    "hogs_at_once": (HEAD + "return np.ones(10**12)", "memory"),
    "deletes": (HEAD + "import shutil\n    shutil.rmtree({victim!r})", "PermissionError"),
    "deletes_quietly": (HEAD + "import os\n    os.remove({victim!r} + '/keep.txt')", "Permission"),
    "overwrites": (HEAD + "open({victim!r} + '/keep.txt', 'w')", "PermissionError"),
    "patches_numpy": (
        "import numpy.testing\n" + HEAD + "np.allclose = np.isclose = lambda *a, **k: True\n"
        "    np.testing.assert_allclose = lambda *a, **k: None\n    return q[:, 0]",
        "soft maximum",
    ),
    "patches_grader": (
        HEAD + "import irlbook.exercises.model as m, irlbook.exercises.expect as e\n"
        "    m.run_check = e.expect_close = lambda *a, **k: None\n    return q[:, 0]",
        "soft maximum",
    ),
    "twice": (SOLUTIONS["soft_backup"], "cell 4.*cell"),  # the test adds the second one
    "exits": (HEAD + "import sys\n    sys.exit(0)", "SystemExit"),
    "exits_hard": (HEAD + "import os\n    os._exit(0)", "ended before it returned"),
    "returns_text": (HEAD + "return 'forty-two'", "is a str"),
    "returns_object": (HEAD + "return object()", "of type object"),
    "returns_nan": (HEAD + "return q.max(axis=1) * np.nan", "finite"),
    "forges": (
        HEAD
        + "import os\n    for fd in range(1, 32):\n        try: os.write(fd, b'ok: 90.1' * 9)\n"
        "        except OSError: pass\n    return q.max(axis=1)",
        "file descriptors|reasonable size|ended before|soft maximum",
    ),
    "forges_with_the_codec": (
        HEAD + "import os\n    from irlbook.exercises import codec, worker\n"
        "    for fd in range(3, 32):\n        try:\n            with os.fdopen(fd, 'wb') as f:\n"
        "                worker.write_frame(f, 1, codec.dumps({{'value': True, 'ok': True}}))\n"
        "        except Exception: pass\n    return q.max(axis=1)",
        "shape|ended before|file descriptors",
    ),
    "dies_at_import": ("class Boom:\n    raise SystemExit\n" + HEAD + "return Boom", "SystemExit"),
    "needs_a_module": ("import no_such_module\n" + HEAD + "return no_such_module.f(q)", "no_such"),
    "cannot_be_read": ("def soft_backup(q, beta:\n    return 1", "cell 4.*line 1"),
    "forgot": ("# nothing here", "defines `soft_backup`"),
    "stub": (HEAD + "# your code here\n    raise NotImplementedError", "there is an answer"),
    "starts_programs": (HEAD + "import subprocess\n    subprocess.run(['ls'])", "PermissionError"),
    "opens_sockets": (HEAD + "import socket\n    socket.socket()", "PermissionError"),
    "reads_others": (HEAD + "return open({submissions!r} + '/good/90_demo.ipynb').read()", "Perm"),
    "kills_parent": (HEAD + "import os\n    os.kill(os.getppid(), 9)", "PermissionError"),
    "changes_inputs": (HEAD + "q -= 1\n    return q", "changes an argument in place"),
}
PRINTS = "def soft_backup(q, beta):\n    print('x' * 3_000_000)\n" + "\n".join(
    line for line in SOLUTIONS["soft_backup"].splitlines()[2:] if "###" not in line
)


def _fill(copy: nbformat.NotebookNode, answers: dict[str, str], written: str = "") -> None:
    for cell in copy.cells:
        for function, source in answers.items():
            if cell.cell_type == "code" and f"def {function}(" in cell.source:
                cell.source = source
        if written and cell.source.startswith("<!-- answer"):
            cell.source = written


def classroom(folder: Path, exercises: list, victim: Path, names: list[str] | None = None) -> None:
    """Write the submissions: the villains named (None: all), good ones, and broken files."""
    base = student_copy(stamp(solution_notebook(), exercises))  # of all: the notebook shows them

    def hand_in(path: Path, answers: dict[str, str], written: str = "", extra: str = "") -> None:
        copy = nbformat.from_dict(json.loads(json.dumps(base)))
        _fill(copy, {**SOLUTIONS, **answers}, written)
        if extra:
            copy.cells.append(nbformat.v4.new_code_cell(extra))
        path.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(copy, path)

    places = {"victim": str(victim), "submissions": str(folder)}
    for name, (source, _) in VILLAINS.items():
        if names is None or name in names:
            source = source.format(**places) if "{" in source else source
            extra = SOLUTIONS["soft_backup"] if name == "twice" else ""
            hand_in(folder / name / "90_demo.ipynb", {"soft_backup": source}, extra=extra)
    if names is not None:
        return
    hand_in(folder / "good" / "90_demo.ipynb", {}, written="Information has a price.")
    hand_in(folder / "prints" / "90_demo.ipynb", {"soft_backup": PRINTS})
    hand_in(folder / "nbgrader_style" / "homework" / "90_demo.ipynb", {})
    hand_in(folder / "ann_90_demo.ipynb", {})
    hand_in(folder / "=cmd!A1" / "my answers.ipynb", {}, written="=1+1")
    script = HEAD + "raise ValueError('<script>alert(1)</script>')"
    hand_in(folder / "scripts" / "90_demo.ipynb", {"soft_backup": script})
    broken = folder / "corrupt" / "90_demo.ipynb"
    broken.parent.mkdir()
    broken.write_text('{"cells": [', encoding="utf-8")
    foreign = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 + 1")])
    (folder / "foreign").mkdir()
    nbformat.write(foreign, folder / "foreign" / "holiday.ipynb")
    (folder / "odd").mkdir()
    odd = '{"cells": [{"cell_type": 3}], "metadata": [], "nbformat": 4, "nbformat_minor": 5}'
    (folder / "odd" / "90_demo.ipynb").write_text(odd, encoding="utf-8")
    (folder / "empty").mkdir()
    with (folder / "huge_90_demo.ipynb").open("wb") as file:
        file.truncate(40 * 2**20)
    (folder / "notes.txt").write_text("not a notebook", encoding="utf-8")
