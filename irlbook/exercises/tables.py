"""Tables that spreadsheets open and write: read in any form, written whole or not at all.

No cell is a formula, and what a table held before stays beside it.
"""

from __future__ import annotations

import contextlib
import csv
import io
import os
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from irlbook.errors import IrlbookError

__all__ = [
    "KEPT_COPIES",
    "Table",
    "csv_text",
    "decode_csv",
    "naming",
    "read_csv",
    "safe_cell",
    "write_atomically",
    "write_with_copy",
]

KEPT_COPIES = 20


@dataclass
class Table:
    """A CSV file as it was found: its first row, the others, and how it was written."""

    header: list[str]
    rows: list[list[str]] = field(default_factory=list)
    delimiter: str = ","
    encoding: str = "utf-8"


def decode_csv(raw: bytes, name: str, error: type[IrlbookError]) -> tuple[str, str]:
    """The text of a CSV file as a spreadsheet saves it, and the encoding to write it in again.

    Raises:
        error: it is a workbook.
    """
    if raw.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0")):
        raise error(f"{name} is a workbook, not a CSV file: save it as CSV and grade again")
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        return raw.decode("utf-16", errors="replace"), "utf-8-sig"
    if raw.startswith(b"\xef\xbb\xbf"):
        return raw.decode("utf-8-sig", errors="replace"), "utf-8-sig"
    try:
        return raw.decode("utf-8"), "utf-8"
    except UnicodeDecodeError:  # a spreadsheet of a Western system
        return raw.decode("cp1252", errors="replace"), "utf-8-sig"


def read_csv(path: Path, error: type[IrlbookError]) -> Table:
    """A CSV file with one row of names, whatever separates its cells.

    Raises:
        error: there is no such file, it is no CSV file, or it holds nothing.
    """
    try:
        text, encoding = decode_csv(path.read_bytes(), path.name, error)
    except OSError as problem:
        raise error(f"{path} cannot be read ({problem.strerror})") from None
    first = next((line for line in text.splitlines() if line.strip()), "")
    delimiter = max(",;\t", key=first.count)
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))
    except csv.Error as problem:
        raise error(f"{path.name} cannot be read ({problem}): save it as CSV again") from None
    rows = [row for row in rows if any(cell.strip() for cell in row)]
    if not rows:
        raise error(f"{path.name} is empty")
    return Table(rows[0], rows[1:], delimiter, encoding)


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """An error of the file system names this file: a full disk alone says nothing of it."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


def write_atomically(
    path: Path, text: str, encoding: str = "utf-8", *, durable: bool = True
) -> None:
    """Write a file so that a reader sees the old one or the new one, never a part.

    Args:
        durable: wait until it is on the disk (a page that is made anew at any time need not).
    """
    _write(path, text.encode(encoding, errors="replace"), durable)


def _write(path: Path, raw: bytes, durable: bool = True) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                file.write(raw)
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def write_with_copy(path: Path, text: str, encoding: str = "utf-8") -> None:
    """Write a table that somebody may have typed into: what it held before stays beside it.

    The copy is `<name>.<date>-<time>.bak`; the last 20 are kept. A table that does not change is
    not touched.
    """
    if path.is_file():
        old = path.read_bytes()
        if old == text.encode(encoding, errors="replace"):
            return
        stamp = time.strftime("%Y%m%d-%H%M%S")
        copy = path.with_name(f"{path.name}.{stamp}.bak")
        number = 1
        while copy.exists():
            number += 1
            copy = path.with_name(f"{path.name}.{stamp}-{number:03d}.bak")
        _write(copy, old)
        copies = [p for p in path.parent.glob("*.bak") if p.name.startswith(f"{path.name}.")]
        for outdated in sorted(copies)[:-KEPT_COPIES]:
            outdated.unlink(missing_ok=True)
    write_atomically(path, text, encoding)


def safe_cell(value: Any) -> str:
    """Text for a CSV cell that no spreadsheet takes for a formula."""
    if value is None:
        return ""
    if isinstance(value, (int, float)):
        return f"{value:g}"
    text = str(value)
    if re.fullmatch(r"-[0-9.,]*", text):  # no formula: a number, and what Moodle has for nothing
        return text
    return "'" + text if text.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) else text


def csv_text(rows: Sequence[Sequence[Any]], delimiter: str = ",") -> str:
    """The rows as CSV, every cell safe."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n", delimiter=delimiter)
    writer.writerows([safe_cell(value) for value in row] for row in rows)
    return out.getvalue()
