"""What is installed: the wheel works away from the checkout, and the core needs no Jupyter."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

from irlbook.authoring import environment, notebooks
from irlbook.authoring.export import write_html
from irlbook.errors import MissingDependencyError

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
JUPYTER = {"jupyterlab", "ipykernel", "ipywidgets", "nbconvert", "nbclient"}


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[\[<>=]", requirement)[0] for requirement in requirements}


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Run a program of a fresh environment that holds the wheel, in an empty folder."""
    work = tmp_path_factory.mktemp("wheel")
    source = work / "source"
    for name in ("irlbook", "chapters", "exercises"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("*.pyc"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    build = ["wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", work, source]
    subprocess.run([*pip, *build], check=True, capture_output=True)
    (wheel,) = work.glob("*.whl")
    venv.create(work / "venv", with_pip=False)
    bin = work / "venv" / ("Scripts" if os.name == "nt" else "bin")
    python = bin / ("python.exe" if os.name == "nt" else "python")
    install = ["--python", python, "install", "--no-deps", "--no-index", wheel]
    subprocess.run([*pip, *install], check=True, capture_output=True)
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    out = subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout
    # its dependencies are those of the tests' environment, after its own packages
    (Path(out.strip()) / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    empty = work / "elsewhere"
    empty.mkdir()
    outside = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    outside["JUPYTER_PATH"] = str(Path(sysconfig.get_path("data"), "share", "jupyter"))

    def run(program: str, *args: str, fails: bool = False) -> str:
        done = subprocess.run(
            [bin / program, *args], cwd=empty, env=outside, capture_output=True, text=True
        )
        assert (done.returncode != 0) == fails, done.stdout + done.stderr
        return done.stderr if fails else done.stdout

    run.folder, run.wheel = empty, wheel

    return run


def test_the_command_helps(installed):
    assert "irlbook run" in installed("irlbook", "--help")
    assert PROJECT["version"] in installed("irlbook", "--version")


def test_the_wheel_carries_every_chapter_and_exercise_once(installed):
    with zipfile.ZipFile(installed.wheel) as wheel:
        notebooks = [name for name in wheel.namelist() if name.endswith(".ipynb")]
    parts = ("chapters", "exercises")
    there = [f"irlbook/book/{p}/{n.name}" for p in parts for n in (ROOT / p).glob("*.ipynb")]
    assert sorted(notebooks) == sorted(there)
    assert installed.wheel.stat().st_size < 20e6


def test_the_wheel_alone_opens_runs_and_checks_a_working_copy(installed):
    # JupyterLab itself would not come back: its place is taken by what only looks
    start = (
        "import os, sys; from irlbook import cli; sys.argv = ['irlbook', 'lab', 'copy', "
        "'--allow-root']; cli.book.hand_over = lambda command, env: "
        "print(os.listdir('copy'), command); cli.main()"
    )
    out = installed("python", "-c", start)
    assert "working copy: copy (new, " in out and "'chapters'" in out and "root_dir=" in out
    original = (ROOT / "chapters" / "00_tour.ipynb").read_bytes()
    copy = installed.folder / "copy" / "chapters" / "00_tour.ipynb"
    assert copy.read_bytes() == original
    task = next((installed.folder / "copy" / "exercises").glob("01_*.ipynb"))
    assert "1 notebooks, 0 problems" in installed("irlbook", "check", str(task))
    out = installed("irlbook", "run", "./copy/chapters/00_tour.ipynb", "--out", "pages")
    assert "00_tour: " in out and (installed.folder / "pages" / "00_tour.html").is_file()
    assert copy.read_bytes() == original


def test_the_wheel_alone_lists_its_chapters_and_names_one_that_is_missing(installed):
    listed = installed("irlbook", "run", "--list").splitlines()
    assert len(listed) == 1 + len(list((ROOT / "chapters").glob("*.ipynb")))
    assert listed[0].startswith("0 · The tour")
    assert "Did you mean 00_tour?" in installed("irlbook", "run", "tuor", fails=True)
    assert "no checkout" in installed("irlbook", "notebooks", "table", fails=True)


BARE = """
import sys
from importlib.abc import MetaPathFinder
from importlib.util import find_spec
class Absent(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name in {absent}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
import irlbook
from irlbook.cli import main
sys.argv = ["irlbook", *sys.argv[1:]]
main()
"""


def test_without_jupyter_help_and_the_list_of_chapters_are_there(installed):
    bare = BARE.format(absent=JUPYTER | {"IPython", "jupyter_client", "tensorboard"})
    for asked in (["--help"], ["train", "--help"], ["train", "dpo", "--help"], ["run", "--list"]):
        assert installed("python", "-c", bare, *asked)


def test_it_runs_as_a_module_for_torchrun(installed):
    assert installed("python", "-m", "irlbook", "--version") == f"irlbook {PROJECT['version']}\n"


CODE = """
from pathlib import Path
import irlbook
from irlbook import exercises
assert "site-packages" in irlbook.__file__, irlbook.__file__
mdp = irlbook.envs.chain(4)
print(irlbook.planning.value_iteration(mdp).report.converged)
print(len(exercises.all_exercises()) > 60)
from irlbook.posttraining import book_models, over_optimization_study
print((book_models.folder(0) / "model.safetensors").is_file())
print((book_models.folder(0) / "chat_template.jinja").is_file())
from importlib.util import find_spec
print(find_spec("irlbook.exercises.wrong_answers") is None)
"""


def test_library_exercises_and_models_are_there(installed):
    assert installed("python", "-c", CODE).split() == ["True"] * 5


CHECK = """
import numpy as np
from irlbook import exercises
try:
    exercises.check("03.1", lambda *given: np.zeros(1))
except exercises.CheckFailed as failed:
    print("fails:", bool(str(failed)))
"""


def test_a_check_of_an_exercise_runs(installed):
    assert "fails: True" in installed("python", "-c", CHECK)


def test_the_core_needs_no_jupyter_and_the_readme_takes_the_extra():
    assert not names(PROJECT["dependencies"]) & JUPYTER
    extras = PROJECT["optional-dependencies"]
    assert names(extras["lab"]) == JUPYTER | {"latex2mathml"}  # the formulas of a page
    assert any(re.match(r"irlbook\[.*\blab\b.*\]", one) for one in extras["test"])
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert 'pip install -c constraints.txt -e ".[lab]" && irlbook run' in readme


def test_the_readme_names_the_torch_that_is_pinned():
    pin = re.search(r"^torch==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)[1]
    named = re.findall(r"torch==([\d.]+)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert set(named) == {pin}


def test_every_constraint_that_an_installer_is_given_exists():
    given = ROOT / ".binder" / "requirements.txt"
    (constraints,) = re.findall(r"^-c (.+)$", given.read_text(encoding="utf-8"), re.MULTILINE)
    assert (given.parent / constraints).resolve() == ROOT / "constraints.txt"


def test_without_jupyter_running_a_notebook_names_the_extra(monkeypatch, tmp_path):
    monkeypatch.setattr(notebooks, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r'nbclient.*pip install "irlbook\[lab\]"'):
        notebooks.execute(ROOT / "chapters" / "00_tour.ipynb")
    with pytest.raises(MissingDependencyError, match="nbconvert"):
        write_html(notebooks.read(ROOT / "chapters" / "00_tour.ipynb"), tmp_path / "a")
    monkeypatch.setattr(environment, "find_spec", lambda name: None)
    (found,) = environment.check_kernel()
    assert found.level == "warning" and "irlbook[lab]" in found.mend


def test_the_wheel_goes_without_the_wrong_answers(installed):
    code = (
        "from importlib.util import find_spec; from irlbook.exercises import get;"
        "assert find_spec('irlbook.exercises.wrong_answers') is None;"
        "print(len(get('03.1').wrong_answers))"
    )
    assert installed("python", "-c", code).strip() == "0"
