"""The same notebooks in nbgrader: release, hand in, grade, export (skipped without the extra)."""

from __future__ import annotations

import csv
import importlib.util
import os
import subprocess
import sys

import nbformat
import pytest
from exercises_demo import EXERCISES, SOLUTIONS, solution_notebook

from irlbook.exercises.release import stamp, student_copy

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("nbgrader") is None, reason="needs the extra `grade`"
)

# registers the demo chapter in every kernel and process that starts with this folder on its path
SITE = """
import irlbook.exercises as exercises
from exercises_demo import EXERCISES
for exercise in EXERCISES:
    exercises.register(exercise)
"""


def test_nbgrader_releases_grades_and_exports_the_solution_notebook(tmp_path):
    course = tmp_path / "course"
    source = course / "source" / "homework"
    source.mkdir(parents=True)
    solution = stamp(solution_notebook(), EXERCISES)
    solution.cells[1].source += "\nimport demo_site"
    nbformat.write(solution, source / "90_demo.ipynb")
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "demo_site.py").write_text(SITE, encoding="utf-8")
    config = "c = get_config()\nc.CourseDirectory.course_id = 'demo'\n"
    (course / "nbgrader_config.py").write_text(config, encoding="utf-8")
    path = os.pathsep.join([str(tmp_path / "site"), os.path.dirname(__file__)])
    programs = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", "")])
    env = {**os.environ, "PYTHONPATH": path, "PATH": programs, "HOME": str(tmp_path)}

    def nbgrader(*words: str) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "nbgrader", *words],
            cwd=course,
            env=env,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    nbgrader("generate_assignment", "homework")
    released = nbformat.read(course / "release" / "homework" / "90_demo.ipynb", as_version=4)
    ours = student_copy(solution)
    for theirs, own in zip(released.cells, ours.cells, strict=True):
        assert theirs.cell_type == own.cell_type
        kept = dict(theirs.metadata.get("nbgrader", {}))
        kept.pop("checksum", None)
        kept.pop("cell_type", None)
        assert kept == own.metadata.get("nbgrader", {})
        if "90-4-answer" not in str(own.metadata) and "raise NotImplemented" not in own.source:
            assert theirs.source == own.source

    for student, answer in (("ann", SOLUTIONS["soft_backup"]), ("bob", "soft_backup = max")):
        copy = nbformat.from_dict(released)
        for cell in copy.cells:
            for function, text in {**SOLUTIONS, "soft_backup": answer}.items():
                if cell.cell_type == "code" and f"def {function}(" in cell.source:
                    cell.source = text
        place = course / "submitted" / student / "homework"
        place.mkdir(parents=True)
        nbformat.write(copy, place / "90_demo.ipynb")
    nbgrader("autograde", "homework")
    nbgrader("export")
    with (course / "grades.csv").open(encoding="utf-8", newline="") as file:
        rows = {row["student_id"]: row for row in csv.DictReader(file)}
    assert float(rows["ann"]["score"]) == 7 and float(rows["ann"]["max_score"]) == 11
    assert float(rows["bob"]["score"]) == 4
