"""A student's own copy of the book: `irlbook lab` opens this, and never the originals.

A copy is a folder with chapters/ and exercises/, and a file that says which original each notebook
was copied from. Asked for again, it gets what is new. A notebook that its owner has changed is
never touched; one that still is what it was copied from is renewed when the book has a newer one.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import irlbook
from irlbook.authoring.notebooks import write_atomically
from irlbook.authoring.repository import MARK, PARTS
from irlbook.errors import WorkingCopyError

__all__ = ["Change", "What", "renew", "summary"]

What = Literal["added", "renewed", "kept", "restored"]


@dataclass(frozen=True)
class Change:
    """What became of one notebook of a working copy.

    Attributes:
        what: "added": it was not there; "renewed": its owner had not changed it, and the book had;
            "kept": both had changed it, so it stayed as its owner left it; "restored": a save of it
            had been killed half-way, so the version before is back.
        path: of the notebook within the copy, such as "chapters/00_tour.ipynb".
    """

    what: What
    path: str


def renew(copy: Path, book: Path) -> list[Change]:
    """Make a working copy of a book, or bring one up to date; each file is written in one step.

    Args:
        copy: the folder; it may exist and hold other files, which stay as they are.
        book: the folder of the originals.

    Returns:
        The notebooks that were restored, added, renewed or kept against the book's, in order.

    Raises:
        WorkingCopyError: the folder is the book itself, or it cannot be read.
    """
    for part in PARTS:
        if (copy / part).resolve() == (book / part).resolve():
            raise WorkingCopyError(
                f"{copy} holds the originals of the book, which irlbook lab does not open. Give "
                "another folder, or none; an author opens the originals with jupyter lab."
            )
    copied_from, changes = dict(_read_mark(copy)), list(_restore(copy))
    for path in _notebooks(book):
        original, own = book / path, copy / path
        new = _digest(original)
        there = _digest(own) if own.exists() else None
        if there == new:
            copied_from[path] = new
        elif there in (None, copied_from.get(path)):
            write_atomically(own, original.read_bytes().decode("utf-8"))
            copied_from[path] = new
            changes.append(Change("renewed" if there else "added", path))
        elif copied_from.get(path) != new:
            changes.append(Change("kept", path))
    mark = {"version": irlbook.__version__, "copied_from": copied_from}
    write_atomically(copy / MARK, json.dumps(mark, indent=1) + "\n")
    return changes


def summary(copy: Path, changes: list[Change]) -> Iterator[str]:
    """What to tell the owner of a copy that was renewed, a line each."""
    added = [change.path for change in changes if change.what == "added"]
    known = len(list(_notebooks(copy)))
    if added and len(added) == known:
        yield f"working copy: {copy} (new, {known} notebooks)"
        return
    yield f"working copy: {copy} ({known} notebooks)"
    for change in changes:
        if change.what == "kept":
            yield (
                f"  kept: {change.path} is as you left it; the book has a newer one. To get it, "
                "rename yours and run irlbook lab again."
            )
        else:
            yield f"  {change.what}: {change.path}"


def _restore(copy: Path) -> Iterator[Change]:
    """Put back what Jupyter keeps beside a notebook while it writes: `.~name.ipynb`."""
    for part in PARTS:
        for kept in sorted((copy / part).glob(".~*.ipynb")):
            notebook = kept.with_name(kept.name.removeprefix(".~"))
            if _is_whole(kept) and not _is_whole(notebook):
                os.replace(kept, notebook)
                yield Change("restored", f"{part}/{notebook.name}")


def _is_whole(notebook: Path) -> bool:
    try:
        return isinstance(json.loads(notebook.read_bytes()), dict)
    except (OSError, ValueError):
        return False


def _notebooks(folder: Path) -> Iterator[str]:
    for part in PARTS:
        for path in sorted((folder / part).glob("*.ipynb")):
            yield f"{part}/{path.name}"


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise WorkingCopyError(f"{path} cannot be read ({error}); move it away") from error


def _read_mark(copy: Path) -> Mapping[str, str]:
    mark = copy / MARK
    if not mark.exists():
        return {}
    try:
        found = json.loads(mark.read_text(encoding="utf-8"))["copied_from"]
        return {str(path): str(digest) for path, digest in found.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}  # every notebook that differs from the book's then counts as its owner's
