"""Hostile files and folders: things that a student may hand in so that a grader stumbles.

Data, an entry an attack: name -> function of (folder of submissions, name, good notebook).
The good notebook has all answers right, so that what a trick would earn is seen. `EARNS` names
those whose answers are honest work and count as far as the trick leaves them.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

Maker = Callable[[Path, str, dict[str, Any]], None]
FILE = "90_demo.ipynb"
BAIT = "<script>alert(1)</script>"


def put(place: Path, content: Any) -> None:
    """Write JSON, text or bytes, folders and all."""
    place.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, dict | list):
        content = json.dumps(content)
    data = content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass")
    place.write_bytes(data)


def _raw(content: Any, file: str = FILE) -> Maker:
    """Hand in this content instead of a notebook."""

    def make(folder: Path, name: str, good: dict[str, Any]) -> None:
        put(folder / name / file, content)

    return make


def _text(change: Callable[[str], Any], file: str = FILE) -> Maker:
    """Hand in the good notebook's text, changed."""

    def make(folder: Path, name: str, good: dict[str, Any]) -> None:
        put(folder / name / file, change(json.dumps(good)))

    return make


def _cells(change: Callable[[list[dict[str, Any]]], Any]) -> Maker:
    """Hand in the good notebook with its cells changed in place."""

    def make(folder: Path, name: str, good: dict[str, Any]) -> None:
        book = copy.deepcopy(good)
        replaced = change(book["cells"])
        if isinstance(replaced, list):
            book["cells"] = replaced
        put(folder / name / FILE, book)

    return make


def _book(change: Callable[[dict[str, Any]], Any]) -> Maker:
    """Hand in the good notebook, changed in place."""

    def make(folder: Path, name: str, good: dict[str, Any]) -> None:
        book = copy.deepcopy(good)
        change(book)
        put(folder / name / FILE, book)

    return make


def _called(student: str, file: str = FILE) -> Maker:
    """Hand in the good notebook under another name."""

    def make(folder: Path, name: str, good: dict[str, Any]) -> None:
        put(folder / student / file, good)

    return make


def _code(source: str) -> dict[str, Any]:
    return {
        "cell_type": "code",
        "id": "added",
        "metadata": {},
        "source": source,
        "outputs": [],
        "execution_count": None,
    }


def _add(source: str) -> Maker:
    """Add a code cell to the good notebook."""
    return _cells(lambda cells: cells.append(_code(source)))


def _replace(old: str, new: str) -> Maker:
    """Replace text in the source of every cell."""

    def change(cells: list[dict[str, Any]]) -> None:
        for cell in cells:
            cell["source"] = "".join(cell["source"]).replace(old, new)

    return _cells(change)


def _link(target: str) -> Maker:
    def make(folder: Path, name: str, good: dict[str, Any]) -> None:
        (folder / name).mkdir(parents=True, exist_ok=True)
        os.symlink(target.replace("FOLDER", str(folder)), folder / name / FILE)

    return make


def _linked_folder(folder: Path, name: str, good: dict[str, Any]) -> None:
    os.symlink("/etc", folder / name)


def _linked_below(folder: Path, name: str, good: dict[str, Any]) -> None:
    (folder / name).mkdir()
    os.symlink("/", folder / name / "root")


def _linked_circle(folder: Path, name: str, good: dict[str, Any]) -> None:
    (folder / name).mkdir()
    os.symlink("..", folder / name / "up")


def _deep(folder: Path, name: str, good: dict[str, Any]) -> None:
    (folder / name).mkdir()
    here = os.getcwd()
    try:
        os.chdir(folder / name)
        for _ in range(1100):
            os.mkdir("d")
            os.chdir("d")
    finally:
        os.chdir(here)


def _wide(folder: Path, name: str, good: dict[str, Any]) -> None:
    (folder / name).mkdir()
    for number in range(3000):
        (folder / name / f"data{number}").touch()


def _pipe(folder: Path, name: str, good: dict[str, Any]) -> None:
    (folder / name).mkdir()
    os.mkfifo(folder / name / FILE)


def _folder_as_file(folder: Path, name: str, good: dict[str, Any]) -> None:
    (folder / name / FILE).mkdir(parents=True)


def _huge(folder: Path, name: str, good: dict[str, Any]) -> None:
    (folder / name).mkdir()
    with (folder / name / FILE).open("wb") as file:
        file.truncate(10 * 2**30)  # a hole, no disk


def _no_rights(folder: Path, name: str, good: dict[str, Any]) -> None:
    put(folder / name / FILE, good)
    (folder / name / FILE).chmod(0)


def _twins(folder: Path, name: str, good: dict[str, Any]) -> None:
    put(folder / name / FILE, good)
    put(folder / name.upper() / FILE, good)


def _platform_within(folder: Path, name: str, good: dict[str, Any]) -> None:
    put(folder / name / f"victim_12345_67890_{FILE}", good)


def _many_books(folder: Path, name: str, good: dict[str, Any]) -> None:
    for number in range(12):
        put(folder / name / f"90_copy{number}.ipynb", good)


def _nested(depth: int) -> str:
    return "[" * depth + "]" * depth


FILES: dict[str, Maker] = {
    # ------------------------------------------------------------------------ no notebook at all
    "empty file": _raw(b""),
    "binary file": _raw(bytes(range(256)) * 4096),
    "image under a notebook's name": _raw(b"\x89PNG\r\n\x1a\n" + bytes(100)),
    "zip under a notebook's name": _raw(b"PK\x03\x04" + bytes(1000)),
    "pickle under a notebook's name": _raw(b"\x80\x04\x95cposix\nsystem\n(S'id'\ntR."),
    "a number": _raw("42"),
    "a list": _raw([1, 2]),
    "null": _raw("null"),
    "brackets, a million deep": _raw(_nested(1_000_000)),
    "objects, 100,000 deep": _raw('{"cells":' * 100_000),
    "NaN and infinity": _raw('{"cells": NaN, "metadata": Infinity, "nbformat": 4}'),
    "a number of a million digits": _raw('{"cells": ' + "9" * 1_000_000 + "}"),
    "text of another encoding": _text(lambda t: t.encode("utf-16")),
    "lone surrogates": _text(lambda t: t.replace("Do it.", "\\ud800")),
    "zero bytes": _text(lambda t: t.replace("Do it.", "\0")),
    "cut in the middle": _text(lambda t: t[: len(t) // 2]),
    "two documents in one file": _text(lambda t: t + t),
    "ten gigabytes of nothing": _huge,
    "31 megabytes of spaces": _text(lambda t: t + " " * (31 * 2**20)),
    # ---------------------------------------------------------------------- a notebook, but broken
    "cells twice, the second good": _text(lambda t: '{"cells": [], ' + t[1:]),
    "cells twice, the second empty": _text(lambda t: t[:-1] + ', "cells": []}'),
    "sources twice": _text(lambda t: t.replace('"source":', '"source": "x = 1", "source":')),
    "cells are an object": _book(lambda b: b.update(cells={"0": b["cells"][0]})),
    "cells are text": _book(lambda b: b.update(cells="def soft_backup(q, beta): return q")),
    "cells are null": _book(lambda b: b.update(cells=[None, *b["cells"]])),
    "a cell of cells": _book(lambda b: b["cells"].insert(0, {"cells": b["cells"][:]})),
    "sources are numbers": _cells(lambda c: [{**x, "source": 7} for x in c]),
    "sources are lists of lists": _cells(lambda c: [{**x, "source": [[x["source"]]]} for x in c]),
    "sources are objects": _cells(lambda c: [{**x, "source": {"a": 1}} for x in c]),
    "metadata is a list": _book(lambda b: b.update(metadata=[1])),
    "metadata of cells is text": _cells(lambda c: [{**x, "metadata": "x"} for x in c]),
    "format 99": _book(lambda b: b.update(nbformat=99)),
    "format 3": _book(lambda b: b.update(nbformat=3)),
    "format is text": _book(lambda b: b.update(nbformat="4; import os")),
    "100,000 cells": _cells(lambda c: c * (100_000 // len(c))),
    "a cell of ten megabytes": _add("x = '" + "a" * 10_000_000 + "'"),
    "a million lines": _add("x = 1\n" * 1_000_000),
    "outputs of 20 megabytes": _cells(
        lambda c: c[1].update(
            outputs=[{"output_type": "stream", "name": "stdout", "text": "x" * 20_000_000}]
        )
    ),
    "outputs that lie": _cells(
        lambda c: [
            {**x, "outputs": [{"output_type": "stream", "name": "stdout", "text": "ok: 90.1"}]}
            if x["cell_type"] == "code"
            else x
            for x in c
        ]
    ),
    # ---------------------------------------------------------------------- bait for the parser
    "bait: many opening comments": _cells(
        lambda c: c.append({**c[0], "id": "bait", "source": "<!-- " * 200_000})
    ),
    "bait: many cards": _cells(
        lambda c: c.append({**c[0], "id": "bait", "source": "<!-- card 90.4 -->\n" * 100_000})
    ),
    "bait: spaces before def": _add(" " * 900_000 + "\ndef soft_backup"),
    "bait: def def def": _add("def " * 200_000),
    "bait: question marks": _add("?" * 400_000),
    "bait: percent signs": _add("%" * 400_000),
    "bait: names and an equals sign": _add("a, " * 200_000 + "= !"),
    "bait: dots": _add("a" + ".a" * 200_000 + "? "),
    "bait: parentheses": _add("x = " + "(" * 5000 + ")" * 5000),
    "bait: unary minus": _add("x = " + "-" * 100_000 + "1"),
    "bait: a tower of powers": _add("x = 9**9**9**9\n"),
    "bait: constants that grow": _add("x = [0] * 10**10\n"),
    "bait: 5,000 chained names": _add(
        "\n".join(f"a{n} = a{n - 1}" for n in range(1, 5000)) + "\na0 = 1"
    ),
    "bait: 3,000 functions": _add("\n".join(f"def f{n}(): return f{n + 1}()" for n in range(3000))),
    "bait: a base class of all": _add("class A(A): pass\n" * 2000),
    # --------------------------------------------------------- answers that claim to be something
    "defined twice": _add("def soft_backup(q, beta):\n    return q.max(axis=1)"),
    "defined in capitals of another alphabet": _replace("def soft_backup", "def soft_b\u0430ckup"),
    "defined with invisible letters": _replace("def soft_backup", "def soft_\u200bbackup"),
    "defined right to left": _replace("def soft_backup", "def \u202esoft_backup"),
    "marks another card": _replace("<!-- card 90.1 -->", "<!-- card 90.2 -->"),
    "gives itself points": _cells(
        lambda c: [
            {**x, "metadata": {"nbgrader": {"grade": True, "points": 99, "grade_id": "90-1"}}}
            for x in c
        ]
    ),
    "names exercises of another chapter": _book(
        lambda b: b["metadata"].update(irlbook={"exercises": ["03.1"]})
    ),
    "names exercises that do not exist": _book(
        lambda b: b["metadata"].update(irlbook={"exercises": ["../../etc", None, 3]})
    ),
    "last week's sheet under this week's name": _called(
        "lastweek", "03_price_of_information.ipynb"
    ),
    "handed in for no chapter": _called("nochapter", "99_nothing.ipynb"),
    "twelve notebooks": _many_books,
    "writes as another of the platform": _platform_within,
    # ------------------------------------------------------------------------------------- names
    "script in a folder's name": _called(BAIT.replace("/", "\u2215")),
    "tag in a folder's name": _called("<img src=x onerror=alert(1)>"),
    "quotes in a folder's name": _called("\"'><b>x"),
    "formula in a folder's name": _called("=HYPERLINK(1)"),
    "plus in a folder's name": _called("+1+cmd"),
    "minus in a folder's name": _called("-1+cmd"),
    "at in a folder's name": _called("@SUM(1)"),
    "tab in a folder's name": _called("\t=1"),
    "line break in a folder's name": _called("a\n=1,b"),
    "comma and quotes in a name": _called('a","=1'),
    "dots in a folder's name": _called("..."),
    "a dot folder": _called(".hidden"),
    "a folder with underscores": _called("__init__"),
    "a reserved name": _called("CON"),
    "a name of 250 letters": _called("n" * 250),
    "a name of other letters": _called("\u7530\u4e2d\u3000\u592a\u90ce\u202e"),
    "a name of bytes": _called(os.fsdecode(b"\xff\xfe\x80")),
    "a name that ends with a space": _called("ann "),
    "twins in letter case": _twins,
    "a formula as file name": _called("sheet", "90_=cmd.ipynb"),
    "a script as file name": _called("sheet2", "90_<script>.ipynb"),
    "a name like a grade": _called("1,5"),
    # ------------------------------------------------------------------- written answers and text
    "script in a written answer": _replace("price of a nat", BAIT),
    "formula in a written answer": _replace("The temperature is", "=cmd|' /C calc'!A0"),
    "script in an exception": _replace("return p", f"raise ValueError('{BAIT}')"),
    "formula in an exception": _replace("return p", "raise ValueError('=1+1')"),
    "script as a line of code": _replace("return p", f"return 1 / 0 # {BAIT}"),
    # ----------------------------------------------------------------------------- the file system
    "link to a password file": _link("/etc/passwd"),
    "link to another's notebook": _link("FOLDER/good/90_demo.ipynb"),
    "link to a device": _link("/dev/zero"),
    "link to itself": _link(FILE),
    "link to nothing": _link("nowhere"),
    "linked folder": _linked_folder,
    "link to the root below": _linked_below,
    "link upwards": _linked_circle,
    "a pipe": _pipe,
    "a folder named like a notebook": _folder_as_file,
    "1,100 folders deep": _deep,
    "3,000 files": _wide,
    "no rights": _no_rights,
}

# honest work that counts: its file's name, its student's name or some words are hostile, no more
EARNS = {
    *(name for name in FILES if "name" in name and "notebook's name" not in name),
    *(name for name in FILES if "written answer" in name or "exception" in name),
    *("a dot folder", "a folder with underscores", "twins in letter case", "cells twice, the second"
      " good", "script as a line of code", "twelve notebooks", "writes as another of the platform"),
    *("outputs that lie", "outputs of 20 megabytes", "gives itself points", "no rights"),
    *(name for name in FILES if name.startswith("bait") or "spaces" in name),
    *("lone surrogates", "marks another card", "sources twice", "defined twice", "a million lines"),
    *("a cell of ten megabytes", "text of another encoding", "defined in capitals of another "
      "alphabet", "defined with invisible letters", "defined right to left"),
    *("names exercises that do not exist", "metadata of cells is text", "cells are null"),
    *("format 3", "format 99", "format is text", "metadata is a list"),
}  # fmt: skip
EARNS -= {
    *("last week's sheet under this week's name", "names exercises of another chapter"),
    *("a folder named like a notebook",),
}
