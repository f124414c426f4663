"""Where the chapters are, what they are called, and the table of them in the README.

The notebooks lie in three kinds of places: a *checkout*, whose chapters are the originals; the
installed *package*, which carries them when it comes from a wheel; and a student's *working copy*,
which `irlbook lab` makes and which is known by the file `.irlbook.json` in it.
"""

import difflib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irlbook.errors import MissingMarksError, RepositoryNotFoundError, UnknownChapterError

__all__ = [
    "MARK",
    "PARTS",
    "TABLE",
    "chapter_table",
    "chapters",
    "find_book",
    "find_chapter",
    "find_copy",
    "find_originals",
    "find_root",
    "with_table",
]

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_PACKAGE = Path(__file__).resolve().parents[1]

MARK = ".irlbook.json"
"""The file of a working copy that says which originals its notebooks were copied from."""

PARTS = ("chapters", "exercises")
"""The folders that a reader gets, in a wheel and in a working copy alike."""

TABLE = re.compile(r"(<!-- chapters -->\n)(.*?)(<!-- /chapters -->)", re.DOTALL)


def find_root(start: Path | None = None) -> Path:
    """The checkout of the book: upwards from `start` (the current folder), else from the package.

    Raises:
        RepositoryNotFoundError: neither lies in a checkout.
    """
    found = _upwards(start, _is_checkout) or _upwards(_PACKAGE.parent, _is_checkout)
    if found is None:
        raise RepositoryNotFoundError(
            f"no checkout of the book around {_folder(start)}: there is no folder with chapters/ "
            "and irlbook/. Change into the checkout, or clone the repository and install it with "
            "pip install -e ."
        )
    return found


def find_copy(start: Path | None = None) -> Path | None:
    """The working copy around `start` (the current folder), if there is one."""
    return _upwards(start, lambda folder: (folder / MARK).is_file())


def find_originals(start: Path | None = None) -> Path:
    """The folder with the original chapters/ and exercises/: a checkout's, or the package's own.

    Raises:
        RepositoryNotFoundError: there is no checkout, and the package carries no notebooks.
    """
    found = _upwards(start, _is_checkout)
    if found is None and (_PACKAGE / "book" / "chapters").is_dir():
        found = _PACKAGE / "book"
    if found is None:
        found = _upwards(_PACKAGE.parent, _is_checkout)
    if found is None:
        raise RepositoryNotFoundError(
            f"this installation of irlbook ({_PACKAGE}) carries no notebooks, and there is no "
            f"checkout of the book around {_folder(start)}. Install the wheel again, or change "
            "into a checkout."
        )
    return found


def find_book(start: Path | None = None) -> Path:
    """The folder whose chapters a reader means: the working copy around `start`, or the originals.

    Raises:
        RepositoryNotFoundError: as in `find_originals`.
    """
    return find_copy(start) or find_originals(start)


def _folder(start: Path | None) -> Path:
    return (start or Path.cwd()).resolve()


def _upwards(start: Path | None, fits: "Callable[[Path], bool]") -> Path | None:
    folder = _folder(start)
    return next((one for one in (folder, *folder.parents) if fits(one)), None)


def _is_checkout(folder: Path) -> bool:
    return (folder / "chapters").is_dir() and (folder / "irlbook" / "__init__.py").is_file()


def chapters(root: Path) -> list[Path]:
    """The notebooks of the chapters, in order."""
    return sorted((root / "chapters").glob("[0-9][0-9]_*.ipynb"))


def find_chapter(name: str, root: Path | None = None) -> Path:
    """The notebook of a chapter given by number (`6`, `06`), slug (`tour`, `00_tour`) or path.

    A path leads to any notebook, wherever it is.

    Args:
        root: the folder of the book; `find_book()`, unless told.

    Raises:
        RepositoryNotFoundError: a name is given, and there is no book to look it up in.
        UnknownChapterError: there is none; the message lists those there are, the nearest first.
    """
    if name.endswith(".ipynb") and Path(name).is_file():
        return Path(name)
    root = root or find_book()
    known = chapters(root)
    if name.endswith(".ipynb"):
        for path in (root / name, root / "chapters" / name):
            if path.is_file():
                return path
    stem = Path(name).name.removesuffix(".ipynb")
    for path in known:
        number, slug = path.stem.split("_", 1)
        if stem in (path.stem, slug) or (stem.isdigit() and int(stem) == int(number)):
            return path
    names = {alias: path.stem for path in known for alias in (path.stem, path.stem[3:])}
    near = difflib.get_close_matches(stem, names, n=1, cutoff=0.5)
    meant = f" Did you mean {names[near[0]]}?" if near else ""
    there = ", ".join(path.stem for path in known) or "none yet"
    raise UnknownChapterError(f"no chapter is called {name!r}.{meant} Chapters: {there}")


def chapter_table(paths: "Iterable[Path]") -> str:
    """The chapters as a markdown table, from the metadata that each of them carries."""
    from irlbook.authoring.notebooks import read, title

    rows = ["| chapter | question | methods | published result | cost |", "|---|---|---|---|---|"]
    for path in paths:
        notebook = read(path)
        book: dict[str, Any] = notebook.metadata.get("irlbook", {})
        cost = book.get("cost", {})
        spent = (
            f"< {cost['seconds_below']} s, < {cost['megabytes_below']} MB" if cost else "not built"
        )
        cells = [
            f"[{title(notebook)}]({path.parent.name}/{path.name})",
            *(str(book.get(key, "")) for key in ("question", "methods", "published")),
            spent,
        ]
        rows.append(
            "| " + " | ".join(" ".join(c.replace("|", r"\|").split()) for c in cells) + " |"
        )
    return "\n".join(rows) + "\n"


def with_table(readme: str, table: str) -> str:
    """`readme` with `table` between its marks.

    Raises:
        MissingMarksError: the marks are missing.
    """
    if not TABLE.search(readme):
        raise MissingMarksError(
            "the README has no place for the table; add the lines "
            "<!-- chapters --> and <!-- /chapters -->"
        )
    return TABLE.sub(lambda found: found.group(1) + table + found.group(3), readme)
