"""Where the chapters are, what they are called, and the table of them in the README."""

import difflib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irlbook.errors import MissingMarksError, RepositoryNotFoundError, UnknownChapterError

if TYPE_CHECKING:
    from collections.abc import Iterable

TABLE = re.compile(r"(<!-- chapters -->\n)(.*?)(<!-- /chapters -->)", re.DOTALL)


def find_root(start: Path | None = None) -> Path:
    """The checkout of the book: upwards from `start` (the current folder), else from the package.

    Raises:
        RepositoryNotFoundError: neither lies in a checkout.
    """
    start = (start or Path.cwd()).resolve()
    package = Path(__file__).resolve().parent
    for folder in [start, *start.parents, *package.parents]:
        if (folder / "chapters").is_dir() and (folder / "irlbook" / "__init__.py").is_file():
            return folder
    raise RepositoryNotFoundError(
        f"no checkout of the book around {start}: there is no folder with chapters/ and irlbook/. "
        "Change into the checkout, or clone the repository and install it with pip install -e ."
    )


def chapters(root: Path) -> list[Path]:
    """The notebooks of the chapters, in order."""
    return sorted((root / "chapters").glob("[0-9][0-9]_*.ipynb"))


def find_chapter(name: str, root: Path) -> Path:
    """The notebook of a chapter given by number (`6`, `06`), slug (`tour`, `00_tour`) or path.

    Raises:
        UnknownChapterError: there is none; the message lists those there are, the nearest first.
    """
    known = chapters(root)
    if name.endswith(".ipynb"):
        for path in (Path(name), root / name, root / "chapters" / name):
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
    from irlbook.notebooks import read, title

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
