"""The command: quick help, clear errors, and what each command leaves behind."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from notebook_builder import chapter, notebook, save

from irlbook import cli
from irlbook.authoring import notebooks, repository
from irlbook.authoring.environment import Finding
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


HEAVY = (
    "torch numpy scipy matplotlib transformers gymnasium nbformat nbclient jinja2 pandas".split()
)


@pytest.mark.parametrize(
    "asked",
    [
        ("--help",),
        ("--version",),
        ("train", "--help"),
        ("train", "dpo", "--help"),
        ("train", "ppo", "--help"),
        ("score", "--help"),
        ("train", "dpo", "--model", "m", "--data", "d", "--out", "o", "--loss", "none_of_them"),
    ],
)
def test_help_and_a_wrong_option_import_nothing_heavy(asked):
    code = (
        f"import sys\nfrom irlbook.cli import main\nsys.argv = ['irlbook', *{asked!r}]\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[]\n")
    assert "irlbook" in done.stdout or "none_of_them" in done.stderr


@pytest.mark.parametrize("group", [(), ("notebooks",), ("exercises",)])
def test_every_command_says_what_it_does(call, group):
    code, out, _ = call(*group, "--help")
    assert code == 0 and "Usage: irlbook" in out.replace("\n", "")


# Finding the book ---------------------------------------------------------------------------------


def test_root_is_found_from_inside_and_else_from_the_package(book, tmp_path_factory):
    assert repository.find_root(book / "chapters") == book
    outside = tmp_path_factory.mktemp("outside")
    assert (repository.find_root(outside) / "irlbook" / "authoring" / "repository.py").is_file()


def test_no_book_at_all_is_a_clear_error(tmp_path, monkeypatch, call):
    monkeypatch.setattr(repository, "_PACKAGE", tmp_path / "site" / "irlbook")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RepositoryNotFoundError, match="clone the repository"):
        repository.find_root()
    code, _, err = call("lab", "--allow-root")
    assert (
        code == 1 and err.startswith("error: this installation of irlbook") and "Trace" not in err
    )
    assert list(tmp_path.iterdir()) == []


def test_a_notebook_is_run_by_its_path_where_there_is_no_book(tmp_path, monkeypatch, call):
    monkeypatch.setattr(repository, "_PACKAGE", tmp_path / "site" / "irlbook")
    monkeypatch.chdir(tmp_path)
    save(notebook("# Mine", "print('ran')"), tmp_path / "copy" / "mine.ipynb")
    code, out, _ = call("run", "./copy/mine.ipynb", "--out", "pages")
    assert code == 0 and "mine: " in out
    assert notebooks.read("pages/mine.ipynb").cells[1].outputs[0].text == "ran\n"


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


def test_links_of_a_page_lead_to_the_chapters_or_to_the_page_beside_it(book, call):
    text = "[a](03_price.ipynb) [b](../exercises/03_price.ipynb#x) [c](gone.ipynb) [d](https://e.f)"
    linked = notebook("# 1 · Links\n\n" + text, "1")
    save(linked, book / "chapters" / "01_links.ipynb")
    assert call("run", "1", "--out", "o/p")[0] == 0
    page = Path("o/p/01_links.html").read_text(encoding="utf-8")
    assert 'href="../../chapters/03_price.ipynb"' in page
    assert 'href="../../exercises/03_price.ipynb#x"' in page
    assert 'href="gone.ipynb"' in page and 'href="https://e.f"' in page
    Path("o/p/03_price.html").write_text("a page")
    assert call("run", "1", "--out", "o/p")[0] == 0
    assert 'href="03_price.html"' in Path("o/p/01_links.html").read_text(encoding="utf-8")


def test_on_a_terminal_a_slow_command_says_what_it_does(call, monkeypatch, tmp_path):
    from irlbook.posttraining import book_models

    monkeypatch.setattr(book_models, "write_world", lambda *a: [])
    assert "writing" not in call("world", tmp_path / "w")[2]
    monkeypatch.setattr(cli.options, "sys", SimpleNamespace(stderr=Terminal()))
    assert call("world", tmp_path / "w")[2].startswith("writing the world of seed 0 to ")


class Terminal:
    def isatty(self) -> bool:
        return True


def test_run_goes_on_after_a_failure_and_names_it(book, call, monkeypatch):
    opened = []
    monkeypatch.setattr(cli.book.typer, "launch", opened.append)
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
    from irlbook.authoring import environment

    def found(*findings):
        monkeypatch.setattr(environment, "CHECKS", {"the machine": lambda: iter(findings)})

    found(Finding("broken", "no numpy", "get it"))
    assert call("doctor") == (
        1,
        "checking the machine ...\n broken   no numpy\n          mend: get it\n"
        "irlbook: 1 broken\nnext: irlbook doctor  # when what is broken is mended as said\n",
        "",
    )
    found(Finding("warning", "slow", "wait"))
    code, out, _ = call("doctor")
    assert code == 0 and "\nirlbook: environment ok, 1 to be warned of\nnext: irlbook run" in out


def test_doctor_says_what_it_checks_before_it_has_checked_it(call, monkeypatch, capsys):
    from irlbook.authoring import environment

    def slow():
        assert capsys.readouterr().out == "checking the slow one ...\n"
        raise RuntimeError("half-way")
        yield

    monkeypatch.setattr(environment, "CHECKS", {"the slow one": slow})
    assert "the check of the slow one failed: RuntimeError: half-way" in call("doctor")[1]


@pytest.fixture
def jupyter(monkeypatch):
    """The commands with which JupyterLab would be started, by an ordinary user."""
    commands = []

    def start(command, env):
        commands.append((command, env))
        return 0

    monkeypatch.setattr(cli.book, "hand_over", start)
    monkeypatch.setattr("os.geteuid", lambda: 1000, raising=False)
    return commands


def test_lab_opens_a_copy_at_the_tour_and_leaves_the_originals_alone(book, call, jupyter):
    before = {path: path.read_bytes() for path in book.rglob("*.ipynb")}
    code, out, _ = call("lab", "--no-browser", "--port", "9999")
    assert code == 0 and out == "working copy: irlbook-work (new, 4 notebooks)\n"
    ((command, _),) = jupyter
    assert command[0] == sys.executable
    assert f"--ServerApp.root_dir={book / 'irlbook-work'}" in command  # so that links lead on
    assert "--LabApp.default_url=/lab/tree/chapters/00_tour.ipynb" in command
    assert command[-3:] == ["--no-browser", "--port", "9999"]
    assert all(path.read_bytes() == content for path, content in before.items())
    assert (book / "irlbook-work" / "exercises" / "03_price.ipynb").is_file()


def test_lab_takes_a_folder_and_finds_the_copy_that_it_is_started_in(
    book, call, jupyter, monkeypatch
):
    assert call("lab", "mine", "--ServerApp.token=t")[0] == 0
    assert jupyter[0][0][-1] == "--ServerApp.token=t" and (book / "mine" / "chapters").is_dir()
    monkeypatch.chdir(book / "mine" / "chapters")
    assert call("lab")[0] == 0
    assert f"--ServerApp.root_dir={book / 'mine'}" in jupyter[1][0]


def test_lab_never_opens_the_originals(book, call, jupyter):
    code, _, err = call("lab", ".")
    assert code == 1 and "holds the originals" in err and jupyter == []
    assert not (book / repository.MARK).exists()


def test_lab_saves_every_ten_seconds_and_keeps_the_users_own_settings(
    book, call, jupyter, monkeypatch
):
    from jupyterlab_server.settings_utils import _get_overrides

    monkeypatch.setenv("JUPYTER_CONFIG_PATH", "/theirs")
    call("lab")
    path = jupyter[0][1]["JUPYTER_CONFIG_PATH"]
    assert path.split(os.pathsep)[1:] == ["/theirs"]
    monkeypatch.setenv("JUPYTER_CONFIG_PATH", path)
    overrides, wrong = _get_overrides("nowhere")
    assert not wrong
    assert overrides["@jupyterlab/docmanager-extension:plugin"]["autosaveInterval"] == 10


def test_lab_as_root_says_the_mend_before_anything_is_made(book, call, jupyter, monkeypatch):
    monkeypatch.setattr("os.geteuid", lambda: 0, raising=False)
    code, _, err = call("lab")
    assert code == 1 and "irlbook lab --allow-root" in err and err.count("\n") == 1
    assert jupyter == [] and not (book / "irlbook-work").exists()
    assert call("lab", "--allow-root")[0] == 0
    assert "--allow-root" in jupyter[0][0]


def test_lab_without_jupyter_names_its_extra(book, call, jupyter, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    code, _, err = call("lab")
    assert code == 1 and 'pip install "irlbook[lab]"' in err and jupyter == []


def test_a_program_that_is_waited_for_survives_ctrl_c_here(monkeypatch):
    waits = []

    class Program:
        def wait(self) -> int:
            waits.append(1)
            if len(waits) == 1:
                raise KeyboardInterrupt
            return 3

    with monkeypatch.context() as patch:
        patch.setattr(cli.book.subprocess, "Popen", lambda command, env: Program())
        assert cli.book.hand_over(["jupyter"], {}, replace=False) == 3 and len(waits) == 2
    code = "import sys; sys.exit(4)"
    assert cli.book.hand_over([sys.executable, "-c", code], dict(os.environ), replace=False) == 4


def test_run_lists_the_chapters_and_executes_none(book, call):
    code, out, _ = call("run", "--list")
    assert code == 0 and not (book / "runs").exists()
    assert out.splitlines() == [
        "0 · The tour",
        "3 · The price of information",
        "6 · Entropy",
        "next: irlbook run 6  # executes chapter 6",
    ]


def test_check_prints_every_problem(book, call):
    code, out, _ = call("check", "chapters/03_price.ipynb")
    assert code == 0 and out.startswith("1 notebooks, 0 problems\nnext: irlbook run --list")
    (book / "chapters" / "07_damaged.ipynb").write_text("{")
    code, out, _ = call("check")
    assert code == 1
    assert "07_damaged.ipynb: damaged, it is not JSON" in out
    assert "cell 2 (print('toured')) was not executed" in out
    assert out.splitlines()[-2].startswith("5 notebooks, ")


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
    code, out, err = call("exercises", "release")
    assert (code, out, err) == (0, "a.ipynb\n", "next: irlbook exercises verify\n")
    assert exercises == [(book / "solutions", book / "exercises")]
    assert call("exercises", "verify")[:2] == (0, "exercises are up to date\n")
    monkeypatch.setattr("irlbook.exercises.release.verify", lambda *a: ["a.ipynb is stale"])
    code, _, err = call("exercises", "verify")
    assert code == 1 and err.startswith("a.ipynb is stale\n") and "exercises release" in err


def test_exercises_grade_passes_its_settings_on(call, exercises, monkeypatch):
    code, out, _ = call("exercises", "grade", "in", "--out", "g.csv", "--seed", 7, "--chapter", "3")
    assert (code, out) == (0, "2 students\n")
    paths = (Path("in"), Path("g.csv"), Path("feedback"))
    plain = {"regrade": (), "new_seed": False, "allow_root": False, "bubblewrap": False}
    plain |= {"only": (), "jobs": 1, "partial": None, "roster": None, "upload": None}
    plain |= {"assignment": "", "late_policy": None, "late": None, "due": None, "exercises": None}
    assert exercises == [(*paths, 7, None, None, {**plain, "chapters": ["3"]})]
    exercises.clear()
    call("exercises", "grade", "in", "--regrade", "ann:03.2", "--container", "bubblewrap")
    again = {**plain, "chapters": None, "regrade": ["ann:03.2"], "bubblewrap": True}
    assert exercises == [(Path("in"), Path("grades.csv"), paths[2], None, None, None, again)]
    exercises.clear()
    few = ("--late-policy", "10%/day, cap 50%", "--due", "2026-11-20T23:59", "--only", "03.2")
    call("exercises", "grade", "in", *few, "--jobs", 2, "--partial", "--roster", "r.csv")
    (given,) = (call[-1] for call in exercises)
    assert given["late_policy"].cap == 50 and given["due"].hour == 23 and given["jobs"] == 2
    assert (given["partial"], given["only"], given["roster"]) == (True, ["03.2"], Path("r.csv"))
    code, _, err = call("exercises", "grade", "in", "--late-policy", "much")
    assert code == 1 and "10%/day, cap 50%, grace 2h" in err

    def interrupt(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("irlbook.exercises.grading.grade", interrupt)
    code, _, err = call("exercises", "grade", "in")
    assert code == 130 and "run the same command again" in err


def test_exercises_grade_hands_over_to_a_container(call, exercises, monkeypatch, tmp_path):
    ran = []
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(
        "irlbook.exercises.container.grade_in_container", lambda command: ran.append(command) or 3
    )
    options = ("--chapter", "3", "--regrade", "03.2", "--seed", 7, "--memory", 512)
    options += ("--jobs", 2, "--whole", "--roster", "class/r.csv", "--upload", "up/u.csv")
    options += ("--sheet", "")  # refused in there, not dropped
    code, _, _ = call("exercises", "grade", "in", "--container", "podman", *options)
    (command,) = ran
    assert code == 3 and exercises == [] and command[:2] == ["podman", "run"]
    image = command.index("irlbook-grade")
    assert command[image + 1 :] == [
        *("/submissions", "--out", "/out/grades.csv", "--feedback", "/feedback", "--seed", "7"),
        *("--memory", "512", "--chapter", "3", "--regrade", "03.2", "--jobs", "2", "--whole"),
        *("--sheet", "", "--roster", "/given/0/r.csv", "--upload", "/upload/u.csv"),
    ]
    assert f"{tmp_path / 'class' / 'r.csv'}:/given/0/r.csv:ro" in command
    assert f"{tmp_path / 'up'}:/upload" in command and f"{2 * 512 + 4096}m" in command
    assert f"{tmp_path / 'in'}:/submissions:ro" in command and "none" in command


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
