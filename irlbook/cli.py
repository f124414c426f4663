"""The `irlbook` command. Everything heavy is imported where it is used, so that help is quick."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from irlbook.errors import IrlbookError, NotebookError

app = typer.Typer(
    help="From a gridworld to aligning a language model, through inverse reinforcement learning.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
notebooks_app = typer.Typer(help="For authors: build the notebooks.", no_args_is_help=True)
exercises_app = typer.Typer(help="For instructors: hand out and grade.", no_args_is_help=True)
app.add_typer(notebooks_app, name="notebooks")
app.add_typer(exercises_app, name="exercises")

Timeout = Annotated[float, typer.Option(help="Seconds that one cell may take.", min=0.1)]
Names = Annotated[list[str] | None, typer.Argument(metavar="[CHAPTER]...")]
Paths = Annotated[list[Path] | None, typer.Argument(metavar="[NOTEBOOK]...")]


def main() -> None:
    """Run the command; an error of the book is one message, not a traceback."""
    try:
        app()
    except IrlbookError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(1)


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


@app.command()
def doctor() -> None:
    """Check versions, cores, memory and GPU, and print the mend of each problem."""
    from irlbook.environment import print_report

    if not print_report():
        raise typer.Exit(1)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def lab(
    context: typer.Context,
    browser: Annotated[bool, typer.Option(help="Open a browser.")] = True,
) -> None:
    """Open the book in JupyterLab. Further options are JupyterLab's own: --port, --allow-root."""
    from importlib.util import find_spec

    from irlbook.errors import MissingDependencyError
    from irlbook.repository import chapters, find_root

    root = find_root()
    if find_spec("jupyterlab") is None:
        raise MissingDependencyError("JupyterLab is not installed here; pip install jupyterlab")
    first = next((f"/{path.relative_to(root).as_posix()}" for path in chapters(root)), "/chapters")
    command = [sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={root}"]
    command += [f"--LabApp.default_url=/lab/tree{first}"] + ([] if browser else ["--no-browser"])
    command += context.args
    try:
        raise typer.Exit(subprocess.call(command))
    except KeyboardInterrupt:
        raise typer.Exit(0) from None


@app.command()
def run(
    names: Names = None,
    out: Annotated[Path, typer.Option(help="Where the executed copies go.")] = Path("runs"),
    timeout: Timeout = 300,
    open_page: Annotated[bool, typer.Option("--open/--no-open", help="Open the pages.")] = False,
) -> None:
    """Execute chapters (the tour, unless told) and write a notebook and a page of each.

    A chapter is named by its number (6), its name (tour) or its path.
    """
    from irlbook import notebooks
    from irlbook.repository import find_chapter, find_root

    root = find_root()
    paths = [find_chapter(name, root) for name in names or ["00"]]
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
            notebooks.write_html(notebooks.read(copy), page)
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


@app.command()
def check(paths: Paths = None) -> None:
    """Check notebooks against the rules of the book (all of them, unless told)."""
    from irlbook.lint import lint, notebooks_of

    if not paths:
        from irlbook.repository import find_root

        paths = notebooks_of(find_root())
    found = 0
    for path in paths:
        try:
            problems = lint(path)
        except NotebookError as error:
            problems = [str(error)]
        for problem in problems:
            typer.echo(f"{path}: {problem}")
        found += len(problems)
    typer.echo(f"{len(paths)} notebooks, {found} problems")
    if found:
        raise typer.Exit(1)


@notebooks_app.command("build")
def build(paths: Paths = None, timeout: Timeout = 300) -> None:
    """Execute and normalise notebooks in place (all chapters and solutions, unless told)."""
    from irlbook import notebooks

    if not paths:
        from irlbook.repository import chapters, find_root

        root = find_root()
        paths = chapters(root) + sorted((root / "solutions").glob("*.ipynb"))
    with _bars() as bars:
        changed = notebooks.build(paths, timeout, bars)
    for path in paths:
        typer.echo(f"{path}: {'changed' if path in changed else 'unchanged'}")


@notebooks_app.command("table")
def table(
    check_only: Annotated[
        bool, typer.Option("--check", help="Change nothing; fail when the README is stale.")
    ] = False,
) -> None:
    """Write the table of chapters into the README."""
    from irlbook import notebooks
    from irlbook.repository import chapter_table, chapters, find_root, with_table

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


@exercises_app.command("release")
def release() -> None:
    """Generate the students' notebooks in exercises/ from solutions/."""
    from irlbook.exercises.release import release as release_all
    from irlbook.repository import find_root

    root = find_root()
    for path in release_all(root / "solutions", root / "exercises"):
        typer.echo(path)


@exercises_app.command("verify")
def verify() -> None:
    """Fail when the exercises are not fit to hand out, or are not what solutions/ would give."""
    from irlbook.exercises.release import verify as verify_all
    from irlbook.repository import find_root

    root = find_root()
    problems = verify_all(root / "solutions", root / "exercises")
    for problem in problems:
        typer.echo(problem, err=True)
    if problems:
        typer.echo("when all else is mended, run: irlbook exercises release", err=True)
        raise typer.Exit(1)
    typer.echo("exercises are up to date")


@exercises_app.command("grade")
def grade(
    submissions: Annotated[Path, typer.Argument(help="The folder of submissions.")],
    out: Annotated[Path, typer.Option(help="The table of points.")] = Path("grades.csv"),
    feedback: Annotated[Path, typer.Option(help="A page for each student.")] = Path("feedback"),
    seed: Annotated[
        int | None, typer.Option(help="Draws the test cases; a secret one unless given.")
    ] = None,
    timeout: Annotated[float, typer.Option(help="Seconds for one exercise.", min=0.1)] = 20,
    memory: Annotated[int, typer.Option(help="Megabytes for one exercise.", min=64)] = 2048,
    chapter: Annotated[
        list[str] | None, typer.Option(help="Grade this chapter only; may be given again.")
    ] = None,
) -> None:
    """Grade a folder of submissions; each exercise runs alone, and no result is no points."""
    from irlbook.exercises.grading import grade as grade_all

    try:
        summary = grade_all(
            submissions, out, feedback, seed, timeout, memory, chapters=chapter or None
        )
    except KeyboardInterrupt:
        typer.echo("interrupted; run the same command again to go on", err=True)
        raise typer.Exit(130) from None
    typer.echo(str(summary))
