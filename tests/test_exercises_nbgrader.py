"""The same notebooks in nbgrader: release, hand in, grade, export (skipped without the extra)."""

from __future__ import annotations

import csv
import importlib.util
import os
import subprocess
import sys

import nbformat
import pytest
from exercises_demo import EXERCISES, solution_notebook

from irlbook.exercises.release import stamp, student_copy

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("nbgrader") is None, reason="needs the extra `grade`"
)

# the notebook imports it: the demo chapter is registered in every kernel of nbgrader
SITE = """
import irlbook.exercises as exercises
from exercises_demo import EXERCISES
for exercise in EXERCISES:
    exercises.register(exercise)
"""

# one process for all steps: nbgrader takes seconds to import
STEPS = """
from pathlib import Path
import nbformat
from exercises_demo import SOLUTIONS
from nbgrader.apps import NbGraderAPI
from nbgrader.plugins import CsvExportPlugin
from traitlets.config import Config

config = Config()
config.CourseDirectory.course_id, config.CourseDirectory.root = "demo", "."
api = NbGraderAPI(config=config)
done = api.generate_assignment("homework")
assert done["success"], done

handed_in = nbformat.read("release/homework/90_demo.ipynb", as_version=4)
for function, text in {**SOLUTIONS, "soft_backup": "soft_backup = max"}.items():
    for cell in handed_in.cells:
        if cell.cell_type == "code" and f"def {function}(" in cell.source:
            cell.source = text
Path("submitted/bob/homework").mkdir(parents=True)
nbformat.write(handed_in, "submitted/bob/homework/90_demo.ipynb")

done = api.autograde("homework", "bob")
assert done["success"], done
with api.gradebook as gradebook:
    CsvExportPlugin().export(gradebook)
"""


def test_nbgrader_releases_grades_and_exports_the_solution_notebook(tmp_path):
    source = tmp_path / "course" / "source" / "homework"
    source.mkdir(parents=True)
    solution = stamp(solution_notebook(), EXERCISES)
    solution.cells[1].source += "\nimport demo_site"
    nbformat.write(solution, source / "90_demo.ipynb")
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "demo_site.py").write_text(SITE, encoding="utf-8")
    path = os.pathsep.join([str(tmp_path / "site"), os.path.dirname(__file__)])
    programs = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", "")])
    env = {**os.environ, "PYTHONPATH": path, "PATH": programs, "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", STEPS],
        cwd=tmp_path / "course",
        env=env,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr

    course = tmp_path / "course"
    released = nbformat.read(course / "release" / "homework" / "90_demo.ipynb", as_version=4)
    for theirs, own in zip(released.cells, student_copy(solution).cells, strict=True):
        meta = dict(theirs.metadata.get("nbgrader", {}))
        meta.pop("checksum", None)
        meta.pop("cell_type", None)
        assert meta == own.metadata.get("nbgrader", {}) and theirs.cell_type == own.cell_type
        if "Your answer here" not in own.source and "raise NotImplemented" not in own.source:
            assert theirs.source == own.source
        assert "SOLUTION" not in theirs.source and "seed=77" not in theirs.source
    with (course / "grades.csv").open(encoding="utf-8", newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["student_id"] == "bob"
    assert float(row["score"]) == 4 and float(row["max_score"]) == 11
