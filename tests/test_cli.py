"""The command: quick help, clear errors, and what each command leaves behind."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from notebook_builder import chapter, notebook, save

from irlbook import cli, notebooks, repository
from irlbook.environment import Finding
from irlbook.errors import RepositoryNotFoundError, UnknownChapterError

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def book(tmp_path, monkeypatch):
    """A small checkout, and the current folder in it."""
    (tmp_path / "irlbook").mkdir()
    (tmp_path / "irlbook" / "__init__.py").touch()
    save(notebook("# 0 · The tour", "print('toured')"), tmp_path / "chapters" / "00_tour.ipynb")
    nb = chapter()
    nb.metadata.irlbook.update(question="Why | how?", methods="soft\nBellman", published="Todorov")
    save(nb, tmp_path / "chapters" / "03_price.ipynb")
    save(notebook("# 6 · Entropy"), tmp_path / "chapters" / "06_maximum_entropy_irl.ipynb")
    save(notebook("# 3 · Exercises"), tmp_path / "exercises" / "03_price.ipynb")
    (tmp_path / "README.md").write_text("a\n<!-- chapters -->\n<!-- /chapters -->\nb\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


# Light --------------------------------------------------------------------------------------------


def test_import_brings_in_no_torch_and_nothing_heavy():
    code = (
        "import sys, irlbook; irlbook.__version__; heavy = {'torch', 'numpy', 'scipy', "
        "'matplotlib', 'transformers', 'gymnasium', 'nbformat'}; print(heavy & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_unknown_attribute_of_the_package_is_named():
    import irlbook

    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        irlbook.nothing  # noqa: B018


def test_help_is_quick_and_imports_nothing_heavy():
    code = (
        "import sys\nfrom irlbook.cli import main\nsys.argv = ['irlbook', '--help']\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "heavy = ('torch', 'numpy', 'scipy', 'matplotlib', 'nbformat', 'nbclient', 'jinja2')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    seconds = []
    for _ in range(2):  # the first may compile
        started = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        seconds.append(time.perf_counter() - started)
    assert "doctor" in done.stdout and "exercises" in done.stdout
    assert done.stdout.endswith("\n[]\n")
    assert min(seconds) < 1.5  # 0.25 to 0.5 on an idle computer


@pytest.mark.parametrize("group", [(), ("notebooks",), ("exercises",)])
def test_every_command_says_what_it_does(call, group):
    code, out, _ = call(*group, "--help")
    assert code == 0 and "Usage: irlbook" in out.replace("\n", "")


# Finding the book ---------------------------------------------------------------------------------


def test_root_is_found_from_inside_and_else_from_the_package(book, tmp_path_factory):
    assert repository.find_root(book / "chapters") == book
    outside = tmp_path_factory.mktemp("outside")
    assert (repository.find_root(outside) / "irlbook" / "repository.py").is_file()


def test_no_checkout_is_a_clear_error(tmp_path, monkeypatch, call):
    monkeypatch.setattr(repository, "__file__", str(tmp_path / "site" / "irlbook" / "r.py"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RepositoryNotFoundError, match="clone the repository"):
        repository.find_root()
    code, _, err = call("lab")
    assert code == 1 and err.startswith("error: no checkout of the book") and "Trace" not in err


@pytest.mark.parametrize(
    "name", ["3", "03", "price", "03_price", "03_price.ipynb", "chapters/03_price.ipynb"]
)
def test_chapter_by_any_of_its_names(book, name):
    assert repository.find_chapter(name, book).resolve() == book / "chapters" / "03_price.ipynb"


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("maximum_entropy_ril", "Did you mean 06_maximum_entropy_irl?"),
        ("03_prise", "Did you mean 03_price?"),
        ("17", "Chapters: 00_tour, 03_price, 06_maximum_entropy_irl"),
        ("gone/xyzzy.ipynb", "no chapter is called 'gone/xyzzy.ipynb'. Chapters: 00_tour"),
    ],
)
def test_unknown_chapter_lists_the_known(book, call, name, hint):
    with pytest.raises(UnknownChapterError) as caught:
        repository.find_chapter(name, book)
    assert hint in str(caught.value)
    code, _, err = call("run", name)
    assert code == 1 and hint in err


# Commands -----------------------------------------------------------------------------------------


def test_run_executes_the_tour_and_writes_both_copies(book, call):
    before = (book / "chapters" / "00_tour.ipynb").read_bytes()
    code, out, err = call("run")
    assert code == 0
    assert "00_tour" in err and "1/1" in err  # the bar
    assert "runs" in out and "00_tour.html" in out
    assert notebooks.read("runs/00_tour.ipynb").cells[1].outputs[0].text == "toured\n"
    assert "toured" in Path("runs/00_tour.html").read_text(encoding="utf-8")
    assert (book / "chapters" / "00_tour.ipynb").read_bytes() == before


def test_run_goes_on_after_a_failure_and_names_it(book, call, monkeypatch):
    opened = []
    monkeypatch.setattr(cli.typer, "launch", opened.append)
    save(notebook("# 1", "1 / 0"), book / "chapters" / "01_bad.ipynb")
    code, out, err = call("run", "1", "tour", "--out", "o", "--open")
    assert code == 1
    assert "cell 2 of 2 (1 / 0) failed: ZeroDivisionError" in err
    assert "1 of 2 failed: 01_bad" in err
    assert (book / "o" / "01_bad.html").is_file() and (book / "o" / "00_tour.html").is_file()
    assert opened == [str(book / "o" / "00_tour.html")]


def test_run_does_not_overwrite_the_chapter(book, call):
    code, _, err = call("run", "3", "--out", "chapters")
    assert code == 1 and "holds the chapter itself" in err
    assert (book / "chapters" / "03_price.ipynb").is_file()


def test_run_interrupted_before_the_first_cell(book, call, monkeypatch):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(notebooks, "execute", interrupt)
    code, out, err = call("run")
    assert code == 130 and "interrupted in 00_tour; nothing was executed" in err and out == ""


def test_doctor_exits_1_when_something_is_broken(call, monkeypatch):
    from irlbook import environment

    monkeypatch.setattr(environment, "report", lambda: [Finding("broken", "no numpy", "get it")])
    assert call("doctor") == (
        1,
        " broken   no numpy\n          mend: get it\nirlbook: 1 broken\n",
        "",
    )
    monkeypatch.setattr(environment, "report", lambda: [Finding("warning", "slow", "wait")])
    code, out, _ = call("doctor")
    assert code == 0 and out.endswith("irlbook: environment ok, 1 to be warned of\n")


def test_lab_opens_the_book_at_the_tour(book, call, monkeypatch):
    commands = []
    monkeypatch.setattr(cli.subprocess, "call", lambda command: commands.append(command) or 0)
    assert call("lab", "--no-browser", "--port", "9999")[0] == 0
    assert commands[0][0] == sys.executable
    assert f"--ServerApp.root_dir={book}" in commands[0]  # so that links to exercises work
    assert "--LabApp.default_url=/lab/tree/chapters/00_tour.ipynb" in commands[0]
    assert commands[0][-3:] == ["--no-browser", "--port", "9999"]

    def interrupt(command):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.subprocess, "call", interrupt)
    assert call("lab")[0] == 0
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    code, _, err = call("lab")
    assert code == 1 and "pip install jupyterlab" in err


def test_check_prints_every_problem(book, call):
    assert call("check", "chapters/03_price.ipynb") == (0, "1 notebooks, 0 problems\n", "")
    (book / "chapters" / "07_damaged.ipynb").write_text("{")
    code, out, _ = call("check")
    assert code == 1
    assert "07_damaged.ipynb: damaged, it is not JSON" in out
    assert "cell 2 (print('toured')) was not executed" in out
    assert out.splitlines()[-1].startswith("5 notebooks, ")


def test_build_says_what_changed(book, call, monkeypatch):
    built = []

    def build(paths, timeout, progress):
        built.append((list(paths), timeout))
        return [paths[0]]

    monkeypatch.setattr(notebooks, "build", build)
    code, out, _ = call("notebooks", "build", "--timeout", "9")
    ((paths, timeout),) = built
    assert [path.name for path in paths][::2] == ["00_tour.ipynb", "06_maximum_entropy_irl.ipynb"]
    assert timeout == 9
    assert out.splitlines()[0].endswith("00_tour.ipynb: changed")
    assert out.splitlines()[1].endswith("03_price.ipynb: unchanged")


def test_table_is_written_between_the_marks(book, call):
    code, _, err = call("notebooks", "table", "--check")
    assert code == 1 and "README.md is stale" in err
    code, out, _ = call("notebooks", "table")
    assert code == 0
    row = (
        "| [3 · The price of information](chapters/03_price.ipynb) | Why \\| how? | soft Bellman "
        "| Todorov | < 10 s, < 256 MB |"
    )
    assert row in out.splitlines()
    assert (book / "README.md").read_text() == (
        f"a\n<!-- chapters -->\n{out}<!-- /chapters -->\nb\n"
    )
    assert call("notebooks", "table", "--check")[0] == 0
    (book / "README.md").write_text("no marks")
    code, _, err = call("notebooks", "table")
    assert code == 1 and "<!-- chapters -->" in err


# Exercises ----------------------------------------------------------------------------------------


@pytest.fixture
def exercises(monkeypatch):
    """Stand-ins for release and grading, which have tests of their own."""
    release = pytest.importorskip("irlbook.exercises.release")
    grading = pytest.importorskip("irlbook.exercises.grading")
    calls = []
    monkeypatch.setattr(release, "release", lambda *a: calls.append(a) or [Path("a.ipynb")])
    monkeypatch.setattr(release, "verify", lambda *a: [])
    monkeypatch.setattr(grading, "grade", lambda *a, **k: calls.append((*a, k)) or "2 students")
    return calls


def test_exercises_release_and_verify(book, call, exercises, monkeypatch):
    assert call("exercises", "release") == (0, "a.ipynb\n", "")
    assert exercises == [(book / "solutions", book / "exercises")]
    assert call("exercises", "verify") == (0, "exercises are up to date\n", "")
    monkeypatch.setattr("irlbook.exercises.release.verify", lambda *a: ["a.ipynb is stale"])
    code, _, err = call("exercises", "verify")
    assert code == 1 and err.startswith("a.ipynb is stale\n") and "exercises release" in err


def test_exercises_grade_passes_its_settings_on(call, exercises, monkeypatch):
    code, out, _ = call("exercises", "grade", "in", "--out", "g.csv", "--seed", 7, "--chapter", "3")
    assert (code, out) == (0, "2 students\n")
    paths = (Path("in"), Path("g.csv"), Path("feedback"))
    assert exercises == [(*paths, 7, 20, 2048, {"chapters": ["3"]})]

    def interrupt(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("irlbook.exercises.grading.grade", interrupt)
    code, _, err = call("exercises", "grade", "in")
    assert code == 130 and "run the same command again" in err


def test_grade_really_takes_these_arguments():
    import inspect

    grading = pytest.importorskip("irlbook.exercises.grading")
    names = list(inspect.signature(grading.grade).parameters)
    assert names[:6] == [
        "submissions_dir",
        "out_csv",
        "feedback_dir",
        "seed",
        "timeout",
        "memory_mb",
    ]
    assert "chapters" in names


def test_metadata_of_a_chapter_is_plain_json(book):
    content = json.loads((book / "chapters" / "03_price.ipynb").read_text(encoding="utf-8"))
    assert set(content["metadata"]["irlbook"]) >= {"question", "cost", "version"}


# What plain `pytest` does -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("printed", "compared"),
    [("-0.000", "0.000"), ("[-0.00 1.0]", "[0.00 1.0]"), ("-0.001", "-0.001"), ("1-0.0", "1-0.0")],
)
def test_nbval_takes_negative_zero_for_zero_and_nothing_else(printed, compared):
    import configparser
    import re

    rules = configparser.RawConfigParser()
    rules.read(ROOT / "tests" / "nbval_sanitize.cfg")
    for name in rules.sections():
        printed = re.sub(rules.get(name, "regex"), rules.get(name, "replace"), printed)
    assert printed == compared


def test_plain_pytest_covers_everything_strictly():
    import tomllib

    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    options = settings["tool"]["pytest"]["ini_options"]
    assert {"tests", "irlbook", "chapters", "solutions"} == set(options["testpaths"])
    assert {"--nbval", "--nbval-current-env", "--doctest-modules"} <= set(options["addopts"])
    assert not {"--nbval-lax"} & set(options["addopts"])
