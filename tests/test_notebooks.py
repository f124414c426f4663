"""Notebooks executed for real: a good one repeats byte for byte, a bad one is named and kept."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_output
from notebook_builder import chapter, notebook, save

import irlbook
from irlbook.authoring import notebooks
from irlbook.errors import CellFailedError, CellTimeoutError, NotebookError

PLOT = """import matplotlib.pyplot as plt
from irlbook import plotting
fig, ax = plt.subplots(figsize=(2, 2))
ax.plot([0, 1])
plotting.show(fig, alt="a line")"""


def test_build_repeats_byte_for_byte_and_counts_the_cost(tmp_path):
    path = save(
        notebook(
            "# 1 · A title\n<!-- cost -->old<!-- /cost -->",
            "import sys\nprint('a', flush=True)\nprint('b')",
            PLOT,
            "import ipywidgets\nipywidgets.IntSlider()",
            "{1: 2}",
            question="Why?",
        ),
        tmp_path / "01_a.ipynb",
    )
    steps = []
    record = lambda p: lambda *step: steps.append((p.name, *step))  # noqa: E731
    assert notebooks.build([path], progress=record) == [path]
    assert steps[0] == ("01_a.ipynb", 0, 4, "import sys")
    assert steps[-1] == ("01_a.ipynb", 4, 4, "")
    first = path.read_bytes()
    assert notebooks.build([path]) == []
    assert path.read_bytes() == first

    nb = notebooks.read(path)
    assert [cell.get("execution_count") for cell in nb.cells] == [None, 1, 2, 3, 4]
    assert [cell.id for cell in nb.cells] == [f"c-00{i}" for i in range(5)]
    (stream,) = nb.cells[1].outputs
    assert stream.text == "a\nb\n"
    (shown,) = nb.cells[2].outputs  # and not a second time by the inline backend
    assert shown.metadata["image/png"].alt == "a line"
    assert shown.data["text/plain"] == "Figure: a line"
    assert nb.cells[3].outputs == []  # a live widget cannot be stored
    book = nb.metadata.irlbook
    assert (book.question, book.version) == ("Why?", irlbook.__version__)
    assert book.cost.seconds_below <= 60 and book.cost.megabytes_below <= 512
    assert f"-->Runs in under {book.cost.seconds_below} s with under" in nb.cells[0].source
    assert list(tmp_path.iterdir()) == [path]  # no temporary file is left


def test_a_path_in_a_variable_is_seen_from_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "pairs.jsonl").touch()
    path = save(
        notebook(
            "# 1 · A title",
            "from irlbook import profiles\nprint(profiles.load().preferences)",
        ),
        tmp_path / "elsewhere" / "01_a.ipynb",
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("IRLBOOK_PREFERENCES", "pairs.jsonl")
    done = notebooks.execute(path)
    assert done.notebook.cells[1].outputs[0].text == f"{tmp_path / 'pairs.jsonl'}\n"


def test_failing_cell_is_named_and_what_ran_is_kept(tmp_path):
    path = save(notebook("# A", "x = 1\nprint(x)", "\n1 / 0", "y = 2"), tmp_path / "a.ipynb")
    before = path.read_bytes()
    out = tmp_path / "out" / "a.ipynb"
    with pytest.raises(CellFailedError) as caught:
        notebooks.execute(path, out)
    assert str(caught.value) == (
        "a.ipynb: cell 3 of 4 (1 / 0) failed: ZeroDivisionError: division by zero"
    )
    kept = notebooks.read(out)
    assert kept.cells[1].outputs[0].text == "1\n"
    assert kept.cells[2].outputs[0].ename == "ZeroDivisionError"
    assert kept.cells[3].execution_count is None
    with pytest.raises(CellFailedError):
        notebooks.build([path])
    assert path.read_bytes() == before


def test_hanging_cell_is_named(tmp_path):
    path = save(notebook("x = 1", "while True: pass"), tmp_path / "a.ipynb")
    started = time.perf_counter()
    with pytest.raises(CellTimeoutError, match=r"cell 2 of 2 \(while True: pass\) .* within 1 s"):
        notebooks.execute(path, timeout=1)
    assert time.perf_counter() - started < 30


def test_kernel_that_dies_is_named(tmp_path):
    path = save(notebook("import os\nos._exit(1)"), tmp_path / "a.ipynb")
    with pytest.raises(CellFailedError, match=r"cell 1 of 1 \(import os\): the kernel died"):
        notebooks.execute(path)


def test_killed_build_leaves_the_old_notebook(tmp_path):
    flag = tmp_path / "started"
    path = save(
        notebook(f"open({str(flag)!r}, 'w').close()\nimport time\ntime.sleep(60)"),
        tmp_path / "a.ipynb",
    )
    before = path.read_bytes()
    code = f"from irlbook.authoring import notebooks; notebooks.build([{str(path)!r}])"
    build = subprocess.Popen([sys.executable, "-c", code], cwd=Path.cwd())
    try:
        deadline = time.monotonic() + 60
        while not flag.exists():
            assert time.monotonic() < deadline and build.poll() is None
            time.sleep(0.1)
    finally:
        build.kill()
        build.wait()
    assert path.read_bytes() == before
    assert {p.name for p in tmp_path.iterdir()} == {"a.ipynb", "started"}


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for one process")
def test_interrupted_run_keeps_what_was_executed(tmp_path):
    flag = tmp_path / "started"
    path = save(
        notebook("print('kept')", f"open({str(flag)!r}, 'w').close()\nimport time\ntime.sleep(60)"),
        tmp_path / "01_a.ipynb",
    )
    command = [sys.executable, "-c", "from irlbook.cli import main; main()", "run", str(path)]
    run = subprocess.Popen(
        [*command, "--out", str(tmp_path / "out")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parent,
        # A shell starts background jobs with SIGINT ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 60
    while not flag.exists():
        assert time.monotonic() < deadline and run.poll() is None
        time.sleep(0.1)
    run.send_signal(signal.SIGINT)
    printed, errors = run.communicate(timeout=60)
    assert run.returncode == 130
    assert "interrupted in 01_a; what was executed so far is kept" in errors
    assert "Traceback" not in errors
    kept = notebooks.read(tmp_path / "out" / "01_a.ipynb")
    assert kept.cells[0].outputs[0].text == "kept\n"
    assert "kept" in (tmp_path / "out" / "01_a.html").read_text(encoding="utf-8")


# Reading ------------------------------------------------------------------------------------------


def as_json(**fields: object) -> str:
    content = {"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5, **fields}
    return json.dumps(content)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b'{"cells": [', "it is not JSON"),
        (b"", "it is not JSON"),
        (b"[" * 100_000, "it is not JSON"),
        (b"\xff\xfe\x00", "not text"),
        (b"[1, 2]", "no list of cells"),
        (b'{"worksheets": [], "nbformat": 3}', "no list of cells"),
        (as_json(nbformat=3).encode(), "format 3 instead of 4"),
        (as_json(cells=[3]).encode(), "not a valid notebook"),
        (as_json(cells=[{"cell_type": "poem"}]).encode(), "not a valid notebook"),
        (as_json(metadata=[]).encode(), "not a valid notebook"),
        (as_json(metadata={"kernelspec": {"language": "R", "name": "ir"}}).encode(), "it is for R"),
    ],
)
def test_a_damaged_or_foreign_file_is_named(tmp_path, content, why):
    path = tmp_path / "bad.ipynb"
    path.write_bytes(content)
    with pytest.raises(NotebookError) as caught:
        notebooks.read(path)
    assert "bad.ipynb" in str(caught.value) and why in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(NotebookError, match="gone.ipynb: cannot be read"):
        notebooks.read(tmp_path / "gone.ipynb")


def test_an_older_minor_format_is_read(tmp_path):
    path = tmp_path / "old.ipynb"
    cell = {"cell_type": "markdown", "metadata": {}, "source": ["# A\n", "b"]}
    path.write_text(as_json(cells=[cell], nbformat_minor=2))
    nb = notebooks.read(path)
    assert nb.cells[0].source == "# A\nb" and notebooks.title(nb) == "A"


def test_reading_is_what_nbformat_reads(tmp_path):
    path = save(chapter(), tmp_path / "a.ipynb")
    assert notebooks.read(path) == nbformat.read(path, as_version=4)


# Normalising and writing --------------------------------------------------------------------------


def test_normalise_removes_what_differs_and_keeps_the_rest():
    nb = chapter()
    expected = nbformat.writes(nb)
    nb.metadata.update(widgets={}, toc={}, kernelspec={"name": "ada", "display_name": "ada"})
    nb.metadata.language_info = {"name": "python", "version": "3.99"}
    for cell in nb.cells:
        cell.id = "x" + cell.id
        cell.metadata.update(execution={"a": 1}, scrolled=True)
        cell.metadata.setdefault("tags", [])
    nb.cells[1].outputs = [
        new_output("stream", name="stdout", text="irlbook: "),
        new_output("stream", name="stdout", text="environment ok\n"),
    ]
    nb.cells[3].outputs[0]["transient"] = {"display_id": "1"}
    assert nbformat.writes(notebooks.normalise(nb)) == expected
    assert nbformat.writes(notebooks.normalise(nb)) == expected


def test_normalise_keeps_streams_apart_and_tags():
    nb = notebook("x")
    nb.cells.append(new_code_cell("y", metadata={"tags": ["a"], "nbgrader": {"points": 1}}))
    names = ["stdout", "stderr", "stdout"]
    nb.cells[0].outputs = [new_output("stream", name=name, text="t") for name in names]
    nb = notebooks.normalise(nb)
    assert [output.name for output in nb.cells[0].outputs] == names
    assert nb.cells[1].metadata == {"tags": ["a"], "nbgrader": {"points": 1}}
    assert notebooks.title(nb) == ""


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    notebooks.write_atomically(path, "old")
    path.chmod(0o600)

    def fail(*names):
        raise OSError("disk full")

    with monkeypatch.context() as patched, pytest.raises(OSError, match="disk full"):
        patched.setattr(notebooks.os, "replace", fail)
        notebooks.write_atomically(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    notebooks.write_atomically(path, "new")
    assert path.read_text() == "new" and (os.name == "nt" or path.stat().st_mode & 0o777 == 0o600)


def test_long_first_lines_are_shortened():
    nb = notebook("\n\n" + "x" * 99)
    assert notebooks.name_of_cell(nb, 0) == f"cell 1 of 1 ({'x' * 57}...)"


@pytest.mark.parametrize(
    ("value", "recorded", "bound"),
    [
        (3.0, None, 10),
        (9.5, None, 20),  # a tenth to spare
        (11.0, 20, 20),
        (9.9, 10, 10),  # still true: kept
        (10.1, 10, 20),
        (9.0, 20, 20),  # one rung too high: kept
        (3.0, 30, 10),  # two: corrected
        (170.0, None, 240),
        (700.0, None, 1080),
        (700.0, 900, 900),
    ],
)
def test_cost_moves_along_the_ladder_without_wavering(value, recorded, bound):
    assert notebooks.rung(value, notebooks.SECONDS_LADDER, recorded) == bound


def test_a_stamped_solution_stays_as_the_build_left_it():
    release = pytest.importorskip("irlbook.exercises.release")
    nb = chapter()
    stamped = release.stamp(nb, [])
    assert notebooks.normalise(stamped) == release.stamp(nb, [])
    assert stamped.metadata.irlbook.cost == nb.metadata.irlbook.cost
    # a student's copy does not go stale because a run took longer
    assert "cost" not in release.student_copy(stamped).metadata.irlbook
