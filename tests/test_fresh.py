"""The claims of a chapter on other seeds: which are drawn again, and what is said of each."""

import csv
import importlib
import os
import subprocess
import sys

import numpy as np
import pytest
from notebook_builder import notebook, save

from irlbook.authoring import fresh

CELLS = """import numpy as np, torch
from irlbook.claims import Claims
from irlbook.stats import verdict
claims = Claims("a chapter")
verdict("one is two", False)
drawn = [np.random.default_rng(seed).normal(5, 1) for seed in range(5)]
luck = [torch.randn(1, generator=torch.Generator().manual_seed(seed)).item() for seed in range(5)]
torch.manual_seed(3)
claims.paired("far above zero", drawn)
claims.paired("luck", luck)
claims.paired("from a file", [1.0, 1.1, 0.9, 1.0, 1.2])
claims.paired("said to be less", np.random.default_rng([1, 2]).normal(5, 1, 5))
assert drawn[0] == np.random.default_rng(0).normal(5, 1)
assert abs(drawn[0] - 5.1257302210933933) < 1e-9, "another draw"
"""
CONCLUDE = """claims.conclude({
    "far above zero": "greater", "luck": "not established", "from a file": "greater",
    "said to be less": "less"})"""


def test_claims_are_drawn_again_and_held_against_the_text(tmp_path, call):
    path = save(notebook(CELLS, CONCLUDE), tmp_path / "01_a.ipynb")
    code, printed, errors = call("run", path, "--fresh", 2, "--out", tmp_path / "out")
    assert code == 0, errors
    assert (
        "3 claims drawn again, 1 from files; of 6 tests:" in printed and "own files" not in printed
    )
    assert "2 against; 2 verdicts did not hold; 2 cells failed" in printed
    assert "draw 2: this does not hold here: one is two" in printed
    assert (
        "draw 1, cell 1 of 2 (import numpy as np, torch): AssertionError: another draw" in printed
    )
    with (tmp_path / "out" / "01_a.fresh.csv").open(newline="") as file:
        rows = {row["claim"]: row for row in csv.DictReader(file)}
    assert rows["from a file"]["drawn again"] == "no"
    assert rows["far above zero"]["drawn again"] == "yes"
    assert rows["far above zero"]["draw 1"] == rows["far above zero"]["draw 2"] == "holds"
    assert rows["luck"]["effect 1"] != rows["luck"]["effect 2"]
    assert rows["said to be less"]["draw 1"] == "against"


STORED = """import numpy as np
from irlbook.claims import Claims
from irlbook.posttraining.stored_runs import StoredRuns
made = StoredRuns("toy made here", {}, here=(0,))
read = StoredRuns("toy left there", {}, here=())
claims = Claims("a chapter")
rows = [made.get("plain", s, lambda s=s: np.random.default_rng(s).normal()) for s in range(5)]
claims.paired("made by the chapter", rows)
claims.paired("made by a study", [read.stored("plain", s) for s in range(5)])
claims.conclude({})
"""
STUDY = """import json, sys
import numpy as np
rows = {s: np.random.default_rng(s).normal(5) for s in range(5)}
with open(sys.argv[1], "x") as file:
    json.dump({"settings": {}, "runs": {"plain": rows}}, file)
"""


def test_stored_runs_are_made_again_in_a_folder(tmp_path, call, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "toy_study.py").write_text(STUDY)
    runs = tmp_path / "runs" / "1"
    runs.mkdir(parents=True)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "irlbook.authoring.fresh", "1", "toy_study"]
    subprocess.run([*command, runs / "toy left there.json"], env=environment, check=True)
    path = save(notebook(STORED), tmp_path / "01_a.ipynb")
    given = ("--fresh", 1, "--remade", tmp_path / "runs", "--out", tmp_path / "out")
    code, printed, errors = call("run", path, *given)
    assert code == 0, errors
    assert "2 claims, one draw: those of files are not told apart" in printed
    assert "failed" not in printed
    with (tmp_path / "out" / "01_a.fresh.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["drawn again"] for row in rows] == ["not known"] * 2
    found = {row["claim"]: float(row["effect 1"]) for row in rows}
    first = np.mean([np.random.default_rng([s, 0xF5E5, 1]).normal() for s in range(5)])
    other = np.mean([np.random.default_rng([s, 0xF5E5, 1]).normal(5) for s in range(5)])
    assert found["made by the chapter"] == pytest.approx(first, rel=1e-3)
    assert found["made by a study"] == pytest.approx(other, rel=1e-3)
    assert len(list((runs / "parts" / "toy made here").glob("*.json"))) == 5


FROM_THE_BOOK = """from irlbook.claims import Claims
from irlbook.posttraining.stored_runs import RESULTS, read_stored
claims = Claims("a chapter")
claims.paired("the book's", [float(len(read_stored(RESULTS / "hindsight.json", "..."))), 3.0])
claims.conclude({})
"""


def test_files_of_the_book_that_were_read_are_named(tmp_path, call):
    path = save(notebook(FROM_THE_BOOK), tmp_path / "01_a.ipynb")
    given = ("--fresh", 1, "--remade", tmp_path, "--out", tmp_path / "out")
    code, printed, errors = call("run", path, *given)
    assert code == 0, errors
    assert "; the book's own files: hindsight.json; " in printed


def test_a_file_that_one_draw_lacks_is_refused(tmp_path, call):
    for draw, name in ((1, "hindsight"), (2, "hindsigt")):
        (tmp_path / f"{draw}").mkdir()
        (tmp_path / f"{draw}" / f"{name}.json").write_text("{}")
    path = save(notebook(STORED), tmp_path / "01_a.ipynb")
    code, _, errors = call("run", path, "--fresh", 2, "--remade", tmp_path)
    assert code != 0 and "has no hindsigt.json, and another draw has" in " ".join(errors.split())


def test_a_folder_of_remade_runs_without_draws_is_refused(tmp_path, call):
    code, _, errors = call("run", "--remade", tmp_path)
    assert code != 0 and "--remade needs --fresh" in errors


@pytest.mark.parametrize("module", ["fresh", "course", "requirements"])
def test_help_of_a_command_for_authors_does_nothing_else(module, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [module, "--help"])
    with pytest.raises(SystemExit) as stopped:
        importlib.import_module(f"irlbook.authoring.{module}").main()
    assert stopped.value.code == 0 and f"irlbook.authoring.{module}" in capsys.readouterr().out


def test_a_command_without_arguments_says_what_is_missing(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["fresh"])
    with pytest.raises(SystemExit):
        fresh.main()
    assert "required: draw, module" in capsys.readouterr().err


def test_one_draw_cannot_tell_what_was_drawn(tmp_path, call):
    path = save(notebook(CELLS, CONCLUDE), tmp_path / "01_a.ipynb")
    code, _, errors = call("run", path, "--fresh", 1, "--out", tmp_path / "out")
    assert code != 0 and "take two or more (--fresh 2)" in errors


def test_the_time_limit_of_a_cell_holds(tmp_path, call):
    path = save(notebook("import time\ntime.sleep(60)"), tmp_path / "01_a.ipynb")
    code, _, errors = call("run", path, "--fresh", 2, "--timeout", 3, "--out", tmp_path / "out")
    assert code != 0 and "did not end within 3 s" in errors


@pytest.mark.parametrize(
    ("said", "side", "mean", "word"),
    [
        ("greater", "greater", 1.0, "holds"),
        ("greater", "not established", 1.0, "direction only"),
        ("greater", "not established", -1.0, "against"),
        ("greater on some processors", "not established", 1.0, "holds"),
        ("less", "less", -1.0, "holds"),
        ("less", "greater", 1.0, "against"),
        ("not established", "not established", -1.0, "holds"),
        ("not established", "less", -1.0, "newly established"),
    ],
)
def test_words(said, side, mean, word):
    assert fresh.Redrawn("a", said, (side,), (mean,)).words == (word,)
