"""`irlbook run`, `lab`, `doctor` for readers, and what authors and instructors do with the book."""

import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import typer

from irlbook.cli.options import next_step, with_example
from irlbook.errors import IrlbookError, NotebookError
from irlbook.profiles import whole_paths

__all__ = [
    "Names",
    "Paths",
    "STUDENTS",
    "Timeout",
    "app",
    "build",
    "check",
    "doctor",
    "exercises_app",
    "grade",
    "hand_over",
    "lab",
    "notebooks_app",
    "release",
    "run",
    "table",
    "verify",
    "write_map",
]

app = typer.Typer()
notebooks_app = typer.Typer(
    help="Build the notebooks.",
    epilog="Example: irlbook notebooks build --help",
    no_args_is_help=True,
)
exercises_app = typer.Typer(
    help="Hand out the exercises and grade them.",
    epilog="Example: irlbook exercises grade --help",
    no_args_is_help=True,
)
STUDENTS = "For students"

Timeout = Annotated[float, typer.Option(help="Seconds that one cell may take.", min=0.1)]
Names = Annotated[
    list[str] | None,
    typer.Argument(metavar="[CHAPTER]...", help="A number (6), a name (tour), or a path."),
]
Paths = Annotated[
    list[Path] | None,
    typer.Argument(metavar="[NOTEBOOK]...", help="All of the book's, unless told."),
]


@contextmanager
def _bars() -> Iterator[Callable[[Path], Callable[[int, int, str], None]]]:
    """Progress bars, one a notebook, that show the cell which runs now."""
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.fields[name]}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("[dim]{task.description}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as bars:

        def start(path: Path) -> Callable[[int, int, str], None]:
            task = bars.add_task("starting a kernel", total=None, name=path.stem)

            def step(done: int, total: int, line: str) -> None:
                bars.update(task, completed=done, total=total, description=escape(line))

            return step

        yield start


@with_example(app, "irlbook doctor runs/dpo", STUDENTS)
def doctor(
    model: Annotated[
        str | None,
        typer.Argument(help="A model to look at too: a hub name, a folder, or a run's folder."),
    ] = None,
    device: Annotated[
        Literal["cpu", "cuda"], typer.Option(help="Where the model is to be used.")
    ] = "cpu",
) -> None:
    """Check this computer, or whether a model can be trained, scored and sampled on it."""
    if model is None:
        from irlbook.authoring.environment import print_report

        if not print_report():
            next_step("irlbook doctor", "when what is broken is mended as said")
            raise typer.Exit(1)
        next_step("irlbook run", "executes the tour; irlbook lab opens the book in JupyterLab")
        return
    from irlbook.posttraining.model_check import check_model

    typer.echo(f"loading {model} ...")
    report = check_model(model, device)
    for line in report.lines():
        typer.echo(line)
    if not report.ok:
        next_step(f"irlbook doctor {shlex.quote(model)}", "when what is said above is mended")
        raise typer.Exit(1)
    next_step(f'irlbook sample {shlex.quote(model)} --prompt "Write a review of the bus."')


@with_example(
    app,
    "irlbook lab my-copy --no-browser --port 9999",
    STUDENTS,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def lab(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[FOLDER] [JUPYTER OPTION]...",
            help="The folder of your copy, and options of JupyterLab itself, such as --port 9999.",
            show_default="the copy around the current folder, else irlbook-work",
        ),
    ] = None,
    browser: Annotated[bool, typer.Option(help="Open a browser window.")] = True,
    allow_root: Annotated[
        bool, typer.Option("--allow-root", help="Let JupyterLab run as root, as in a container.")
    ] = False,
) -> None:
    """Open your own copy of the book in JupyterLab; the originals stay as they are.

    The copy is made when there is none. Later calls add what is new in the book, and never touch a
    notebook that you have changed. Notebooks are saved every ten seconds.
    """
    from importlib.util import find_spec

    from irlbook.authoring import working_copy
    from irlbook.authoring.repository import chapters, find_copy, find_originals
    from irlbook.errors import MissingDependencyError, RootError

    if find_spec("jupyterlab") is None:
        raise MissingDependencyError(
            'JupyterLab is not installed here. Run: pip install "irlbook[lab]"'
        )
    if not allow_root and getattr(os, "geteuid", lambda: 1)() == 0:
        raise RootError(
            "JupyterLab does not start as root unless it is told to. Work as an ordinary user, or, "
            "in a container of your own, run: irlbook lab --allow-root"
        )
    options = list(words or ())
    named = options and not options[0].startswith("-")
    folder = Path(options.pop(0)) if named else find_copy() or Path("irlbook-work")
    changes = working_copy.renew(folder, find_originals())
    for line in working_copy.summary(folder, changes):
        typer.echo(line)
    first = next(f"/chapters/{path.name}" for path in chapters(folder))
    command = [sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={folder.resolve()}"]
    command += [f"--LabApp.default_url=/lab/tree{first}"] + ([] if browser else ["--no-browser"])
    command += ["--allow-root"] * allow_root + options
    settings = Path(working_copy.__file__).parent / "jupyter"
    paths = [str(settings), *filter(None, [os.environ.get("JUPYTER_CONFIG_PATH")])]
    env = {**whole_paths(os.environ), "JUPYTER_CONFIG_PATH": os.pathsep.join(paths)}
    raise typer.Exit(hand_over(command, env))


def hand_over(command: list[str], env: dict[str, str], replace: bool = os.name == "posix") -> int:
    """Let a program take the place of this one, so that Ctrl-C and other signals are its own.

    Where a program cannot be replaced, on Windows, wait for it through every Ctrl-C: the program
    has got it too, and ends when it has saved what is open.
    """
    sys.stdout.flush()
    if replace:
        os.execve(command[0], command, env)
    process = subprocess.Popen(command, env=env)
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            continue


@with_example(app, "irlbook run 6 --open", STUDENTS)
def run(
    names: Names = None,
    out: Annotated[Path, typer.Option(help="The folder for executed copies and pages.")] = Path(
        "runs"
    ),
    timeout: Timeout = 300,
    open_page: Annotated[
        bool, typer.Option("--open/--no-open", help="Show the pages in a browser.")
    ] = False,
    list_chapters: Annotated[
        bool, typer.Option("--list", help="List the chapters, and execute nothing.")
    ] = False,
    fresh: Annotated[
        int,
        typer.Option(help="Run each so often (2 or more) on other seeds: what holds?", min=0),
    ] = 0,
    remade: Annotated[
        Path | None,
        typer.Option(help="With --fresh: a folder in which stored runs are made again, too."),
    ] = None,
) -> None:
    """Execute chapters (the tour, unless told) and write a notebook and a page of each.

    A chapter is named by its number (6), its name (tour) or the path of any notebook. With
    --fresh 2 it is executed twice with seeds that nobody has looked at, and what becomes of each
    learned claim is written to a table in place of the notebook and the page.
    """
    from irlbook.authoring import notebooks
    from irlbook.authoring.export import write_html
    from irlbook.authoring.repository import chapters, find_book, find_chapter

    if list_chapters:
        for path in chapters(find_book()):
            typer.echo(notebooks.title(notebooks.read(path)))
        next_step("irlbook run 6", "executes chapter 6")
        return
    if remade is not None and not fresh:
        raise typer.BadParameter("--remade needs --fresh")
    paths = [find_chapter(name) for name in names or ["00"]]
    notebooks.need_jupyter("ipykernel", "nbclient", "nbconvert", "latex2mathml")
    if fresh:
        _claims_again(paths, out, fresh, timeout, remade)
        return
    failed = []
    for path in paths:
        copy, page = out / path.name, out / f"{path.stem}.html"
        if copy.resolve() == path.resolve():
            raise NotebookError(f"{out} holds the chapter itself; give another folder with --out")
        copy.unlink(missing_ok=True)
        stopped = None
        try:
            with _bars() as bars:
                notebooks.execute(path, copy, timeout, bars(path))
        except (KeyboardInterrupt, IrlbookError) as error:
            stopped = error
        if copy.exists():
            write_html(notebooks.moved(notebooks.read(copy), path.parent, out), page)
            typer.echo(f"{path.stem}: {copy} and {page}")
        if isinstance(stopped, KeyboardInterrupt):
            kept = "what was executed so far is kept" if copy.exists() else "nothing was executed"
            typer.echo(f"interrupted in {path.stem}; {kept}", err=True)
            raise typer.Exit(130)
        if stopped is not None:
            typer.echo(f"error: {stopped}", err=True)
            failed.append(path.stem)
        elif open_page:
            typer.launch(str(page.resolve()))
    if failed:
        if len(paths) > 1:
            typer.echo(f"{len(failed)} of {len(paths)} failed: {', '.join(failed)}", err=True)
        raise typer.Exit(1)
    next_step("irlbook lab", "opens your own copy of the book, with the exercises")


def _claims_again(
    paths: list[Path], out: Path, draws: int, timeout: float, remade: Path | None
) -> None:
    """Execute chapters on other seeds; a table of each, and a line that counts what holds."""
    from irlbook.authoring import fresh

    for path in paths:
        with _bars() as bars:
            again = fresh.chapter_again(path, range(1, draws + 1), timeout, bars(path), remade)
        table = out / f"{path.stem}.fresh.csv"
        fresh.write_table(again, table)
        typer.echo(f"{path.stem}: {again.summary()}; {table}")
        for line in (*again.verdicts, *again.failed):
            typer.echo(f"  {line.splitlines()[0]}")
    next_step(f"cat {shlex.quote(str(out))}/*.fresh.csv", "shows each claim")


@with_example(app, "irlbook check chapters/06_maximum_entropy_irl.ipynb", "For authors")
def check(paths: Paths = None) -> None:
    """Check how notebooks are made: order of execution, links, figures, names, warnings.

    Whether an exercise is solved is checked in its notebook, by exercises.check("03.2", answer);
    whole folders of submissions by irlbook exercises grade.
    """
    from irlbook.authoring.lint import lint, notebooks_of

    if not paths:
        from irlbook.authoring.repository import find_book

        paths = notebooks_of(find_book())
    found = 0
    for path in paths:
        try:
            problems = lint(path)
        except NotebookError as error:
            problems = [str(error).removeprefix(f"{path}: ")]
        for problem in problems:
            typer.echo(f"{path}: {problem}")
        found += len(problems)
    typer.echo(f"{len(paths)} notebooks, {found} problems")
    if found:
        next_step("irlbook check --help", "says what is checked")
        raise typer.Exit(1)
    next_step("irlbook run --list", "shows the chapters that can be executed")


@with_example(notebooks_app, "irlbook notebooks build chapters/06_*.ipynb")
def build(paths: Paths = None, timeout: Timeout = 300) -> None:
    """Execute and normalise notebooks in place (all chapters and solutions, unless told)."""
    from irlbook.authoring import notebooks

    if not paths:
        from irlbook.authoring.repository import chapters, find_root

        root = find_root()
        paths = chapters(root) + sorted((root / "solutions").glob("*.ipynb"))
    with _bars() as bars:
        changed = notebooks.build(paths, timeout, bars)
    for path in paths:
        typer.echo(f"{path}: {'changed' if path in changed else 'unchanged'}")
    next_step(f"irlbook check {shlex.join(map(str, paths))}" if len(paths) < 4 else "irlbook check")


@with_example(notebooks_app, "irlbook notebooks table --check")
def table(
    check_only: Annotated[
        bool, typer.Option("--check", help="Change nothing; fail when the README is stale.")
    ] = False,
) -> None:
    """Write the table of chapters into the README."""
    from irlbook.authoring import notebooks
    from irlbook.authoring.repository import chapter_table, chapters, find_root, with_table

    root = find_root()
    text = chapter_table(chapters(root))
    readme = root / "README.md"
    old = readme.read_text(encoding="utf-8")
    new = with_table(old, text)
    if check_only and new != old:
        typer.echo("README.md is stale; run: irlbook notebooks table", err=True)
        raise typer.Exit(1)
    if new != old:
        notebooks.write_atomically(readme, new)
    typer.echo(text, nl=False)
    next_step("irlbook notebooks map", err=True)


@with_example(notebooks_app, "irlbook notebooks map --check", name="map")
def write_map(
    check_only: Annotated[
        bool, typer.Option("--check", help="Change nothing; fail when docs/map.md is stale.")
    ] = False,
) -> None:
    """Write docs/map.md: from the symbols of the notation to functions, and to chapters."""
    from irlbook.authoring.book_map import book_map
    from irlbook.authoring.notebooks import write_atomically
    from irlbook.authoring.repository import find_root

    root = find_root()
    page, text = root / "docs" / "map.md", book_map(root)
    stale = not page.exists() or page.read_text(encoding="utf-8") != text
    if check_only and stale:
        typer.echo("docs/map.md is stale; run: irlbook notebooks map", err=True)
        raise typer.Exit(1)
    if stale:
        write_atomically(page, text)
    typer.echo(f"{page}: {'changed' if stale else 'unchanged'}")
    next_step("irlbook notebooks table --check", err=True)


@with_example(exercises_app, "irlbook exercises release")
def release() -> None:
    """Generate the students' notebooks in exercises/ from solutions/."""
    from irlbook.authoring.repository import find_root
    from irlbook.exercises.release import release as release_all

    root = find_root()
    for path in release_all(root / "solutions", root / "exercises"):
        typer.echo(path)
    next_step("irlbook exercises verify", err=True)


@with_example(exercises_app, "irlbook exercises verify")
def verify() -> None:
    """Fail when the exercises are not fit to hand out, or are not what solutions/ would give."""
    from irlbook.authoring.repository import find_root
    from irlbook.exercises.release import verify as verify_all

    root = find_root()
    problems = verify_all(root / "solutions", root / "exercises")
    for problem in problems:
        typer.echo(problem, err=True)
    if problems:
        typer.echo("when all else is mended, run: irlbook exercises release", err=True)
        raise typer.Exit(1)
    typer.echo("exercises are up to date")
    next_step("irlbook exercises grade --help", err=True)


@with_example(exercises_app, "irlbook exercises grade submissions --chapter 3")
def grade(
    submissions: Annotated[Path, typer.Argument(help="The folder with the students' notebooks.")],
    out: Annotated[Path, typer.Option(help="The table of points to write.")] = Path("grades.csv"),
    feedback: Annotated[Path, typer.Option(help="The folder for a page for each student.")] = Path(
        "feedback"
    ),
    seed: Annotated[
        int | None, typer.Option(help="Decides the test cases; a secret one unless given.", min=0)
    ] = None,
    timeout: Annotated[
        float | None, typer.Option(help="Seconds for one exercise, 20 unless given.", min=0.1)
    ] = None,
    memory: Annotated[
        int | None, typer.Option(help="Megabytes for one exercise, 2048 unless given.", min=64)
    ] = None,
    chapter: Annotated[
        list[str] | None,
        typer.Option(help="Grade only this chapter (3) or lab (3L); repeatable."),
    ] = None,
    sheet: Annotated[
        str | None,
        typer.Option(
            help="Only these exercises, =points of your own: '6.1-6.4, 6.6=10'. '6.1-6.4=2' gives "
            "two points each."
        ),
    ] = None,
    regrade: Annotated[
        list[str] | None,
        typer.Option(help="Grade this exercise anew: 03.2, or ann:03.2 for one student."),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(help="Grade this exercise alone anew (03.2, ann:03.2); nothing else is run."),
    ] = None,
    jobs: Annotated[
        int, typer.Option(help="How many exercises are graded at once: at most one a core.", min=1)
    ] = 1,
    partial: Annotated[
        bool | None,
        typer.Option(
            "--partial/--whole",
            help="Give part of the points for part of the properties; all or none unless given.",
            show_default=False,
        ),
    ] = None,
    roster: Annotated[
        Path | None,
        typer.Option(help="The class, as Canvas, Moodle or a table has it: all get a row."),
    ] = None,
    upload: Annotated[
        Path | None,
        typer.Option(help="Write the grades with the roster's columns, to be uploaded."),
    ] = None,
    assignment: Annotated[
        str, typer.Option(help="The column of the upload; irlbook and the chapters unless given.")
    ] = "",
    late_policy: Annotated[
        str, typer.Option(help="What lateness costs: '10%/day, cap 50%, grace 2h'.")
    ] = "",
    late: Annotated[
        Path | None,
        typer.Option(help="A table of who was late: student, and days late or submitted."),
    ] = None,
    due: Annotated[
        str, typer.Option(help="When it was due, 2026-11-20T23:59, for times of handing in.")
    ] = "",
    new_seed: Annotated[
        bool, typer.Option("--new-seed", help="Draw new test cases and grade everything anew.")
    ] = False,
    container: Annotated[
        Literal["docker", "podman", "bubblewrap"] | None,
        typer.Option(help="Grade inside a container: the way for code that may be hostile."),
    ] = None,
    allow_root: Annotated[
        bool, typer.Option("--allow-root", help="Let answers run as root where they must.")
    ] = False,
) -> None:
    """Grade a folder of submissions; each exercise runs alone, and no result is no points.

    Grading the same folder again re-draws nothing: it counts the marks and grades what is new.
    """
    from irlbook.exercises.grading import grade as grade_all
    from irlbook.exercises.late import LatePolicy, moment

    if container in ("docker", "podman"):
        from irlbook.exercises.container import engine_command, grade_in_container

        single = {"--seed": seed, "--timeout": timeout, "--memory": memory}
        options = [word for name, v in single.items() if v is not None for word in (name, str(v))]
        options += [word for c in chapter or () for word in ("--chapter", c)]
        options += [word for r in regrade or () for word in ("--regrade", r)]
        options += [word for o in only or () for word in ("--only", o)]
        options += ["--jobs", str(jobs)] * (jobs > 1)
        options += [] if partial is None else ["--partial" if partial else "--whole"]
        options += ["--new-seed"] * new_seed
        texts = {"--late-policy": late_policy, "--due": due, "--assignment": assignment}
        options += [word for name, text in texts.items() if text for word in (name, text)]
        options += [] if sheet is None else ["--sheet", sheet]
        files = {"--roster": roster, "--late": late}
        command = engine_command(
            container,
            submissions,
            out,
            feedback,
            options,
            memory_mb=(memory or 2048) * jobs,
            files={name: path for name, path in files.items() if path is not None},
            upload=upload,
        )
        raise typer.Exit(grade_in_container(command))
    try:
        summary = grade_all(
            submissions,
            out,
            feedback,
            seed,
            timeout,
            memory,
            chapters=chapter or None,
            regrade=regrade or (),
            only=only or (),
            jobs=jobs,
            partial=partial,
            roster=roster,
            upload=upload,
            assignment=assignment,
            exercises=sheet,
            late_policy=LatePolicy.parse(late_policy) if late_policy else None,
            late=late,
            due=moment(due) if due else None,
            new_seed=new_seed,
            allow_root=allow_root,
            bubblewrap=container == "bubblewrap",
        )
    except KeyboardInterrupt:
        typer.echo("interrupted; run the same command again to go on", err=True)
        raise typer.Exit(130) from None
    typer.echo(str(summary))
