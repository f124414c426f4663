"""The `irlbook` command. Everything heavy is imported where it is used, so that help is quick."""

import os
import sys
import warnings
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

import typer

from irlbook import __version__
from irlbook.cli import book, files, train
from irlbook.errors import IrlbookError

# The ancestor of all errors of usage; typer has moved it about, but not its own BadParameter.
UsageError: type[Exception] = typer.BadParameter.__bases__[0]

app = typer.Typer(
    help="From a gridworld to aligning a language model, through inverse reinforcement learning.",
    epilog="Example: irlbook run --list",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(book.app)
app.add_typer(files.app)
app.add_typer(train.app, name="train", rich_help_panel=files.MODELS)
app.add_typer(files.models_app, name="models", rich_help_panel=files.MODELS)
app.add_typer(book.exercises_app, name="exercises", rich_help_panel="For instructors")
app.add_typer(book.notebooks_app, name="notebooks", rich_help_panel="For authors")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"irlbook {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command; an error or a warning of the book is one line, without code."""
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")  # a name that cannot be had is one line
    with warnings.catch_warnings():
        warnings.showwarning = partial(_show_warning, warnings.showwarning)
        try:
            code = app(prog_name="irlbook", standalone_mode=False)
        except UsageError as error:
            code = _usage(error)
        except (IrlbookError, OSError) as error:
            typer.echo(f"error: {error}", err=True)
            code = 1
    sys.exit(code or 0)


def _usage(error: Any) -> int:
    """Say what is wrong with a command line, in one line; a group without a command is its help."""
    if type(error).__name__ == "NoArgsIsHelpError":
        typer.echo(error.ctx.get_help())
        return 2
    where = f"; see {error.ctx.command_path} --help" if error.ctx else ""
    message = " ".join(error.format_message().split()).rstrip(".")
    typer.echo(f"error: {message}{where}", err=True)
    return 2


def _show_warning(other: Callable[..., None], message: Warning, kind: type, *where: Any) -> None:
    if kind.__module__ == IrlbookError.__module__:
        typer.echo(f"warning: {message}", err=True)
    else:
        other(message, kind, *where)
