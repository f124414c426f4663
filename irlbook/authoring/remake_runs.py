"""Make the stored runs of a chapter again, by executing the chapter.

    python -m irlbook.authoring.remake_runs 13 --parts FOLDER

Each run is kept in the folder as soon as it is done; the same command goes on with those that are
missing. A chapter may stop at an assertion about its own machine: what it had run by then is kept.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from irlbook.authoring.notebooks import execute
from irlbook.authoring.repository import find_chapter
from irlbook.errors import as_command
from irlbook.posttraining.stored_runs import MAKING, RESULTS, bundle

__all__ = ["main", "remake"]


def remake(chapter: str, parts: Path | str, out: Path | str = RESULTS) -> list[Path]:
    """Execute a chapter with every run made, and write its runs to `out`, a file for each name.

    Raises:
        DataNotFoundError: the chapter asks for no stored run.
        NotebookError, CellFailedError: as `irlbook.authoring.notebooks.execute`.
    """
    parts = Path(parts).resolve()
    before = os.environ.get(MAKING)
    os.environ[MAKING] = str(parts)
    try:
        execute(find_chapter(chapter), timeout=None)
    finally:
        if before is None:
            del os.environ[MAKING]
        else:
            os.environ[MAKING] = before
    folders = sorted(folder for folder in parts.glob("*") if folder.is_dir())
    files = [Path(out) / f"{folder.name}.json" for folder in folders]
    for folder, file in zip(folders, files, strict=True):
        bundle(folder, file)
    return files


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m irlbook.authoring.remake_runs",
        description=(__doc__ or "").partition("\n")[0],
    )
    parser.add_argument("chapter", help="number or slug, such as 13")
    parser.add_argument("--parts", type=Path, required=True, help="folder of runs that are done")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the files")
    given = parser.parse_args(arguments)
    for file in remake(given.chapter, given.parts, given.out):
        print(file)
    return 0


if __name__ == "__main__":
    raise SystemExit(as_command(main))
