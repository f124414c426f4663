"""The public names of the library: `__all__` of each module, and what each room offers at its door.

    python -m irlbook.authoring.fronts            renew both
    python -m irlbook.authoring.fronts --check    say which are stale

A module's public names are what it defines without an underscore. A room offers the functions and
classes of its modules, loaded when they are used (:func:`irlbook._front.front`); a name that two
of its modules define, or that is also a module's, is had from its module only.
"""

import ast
import sys
from collections import Counter
from pathlib import Path

from irlbook.authoring.notebooks import write_atomically
from irlbook.authoring.repository import find_root
from irlbook.errors import MissingMarksError

__all__ = ["NO_ROOMS", "definitions", "main", "offers", "renewed", "with_all", "with_front"]

NO_ROOMS = ("cli", "chapters", "wrong_answers")
"""Packages without a front: the commands, and the exercises of each chapter."""


def definitions(source: str, *, callables: bool = False) -> list[str]:
    """The public names that a module defines at its top level, sorted: no imports.

    Args:
        callables: functions and classes only, no constants and aliases of types.
    """
    names: set[str] = set()
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif callables:
            continue
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
    return sorted(name for name in names if not name.startswith("_"))


def with_all(source: str) -> str:
    """`source` with the `__all__` that it should have, after its imports."""
    tree = ast.parse(source)
    names = definitions(source)
    lines = source.splitlines(keepends=True)
    old = next((node for node in tree.body if _assigns(node, "__all__")), None)
    if not names:
        return source
    block = "__all__ = [\n" + "".join(f'    "{name}",\n' for name in names) + "]\n"
    if len(short := "__all__ = [" + ", ".join(f'"{name}"' for name in names) + "]\n") <= 101:
        block = short
    if old is not None:
        lines[old.lineno - 1 : old.end_lineno] = [block]
        return "".join(lines)
    last = 0
    for node in tree.body:
        docstring = isinstance(node, ast.Expr) and node is tree.body[0]
        if isinstance(node, ast.Import | ast.ImportFrom) or docstring:
            last = node.end_lineno or 0
    return "".join([*lines[:last], "\n", block, *lines[last:]])


def offers(room: Path) -> dict[str, list[str]]:
    """What a room offers: of each of its modules, the functions and classes that are its alone."""
    modules = {path.stem: path for path in sorted(room.glob("*.py")) if path.stem[0] != "_"}
    rooms = [path.parent.name for path in room.glob("*/__init__.py")]
    defined = {
        name: definitions(path.read_text(encoding="utf-8"), callables=True)
        for name, path in modules.items()
    }
    count = Counter(name for names in defined.values() for name in names)
    taken = {*modules, *rooms}
    return {
        module: [name for name in names if count[name] == 1 and name not in taken]
        for module, names in defined.items()
    }


def with_front(source: str, given: dict[str, list[str]]) -> str:
    """`source` of an `__init__.py` with these names in its call of `front`.

    Raises:
        MissingMarksError: it does not call `front(__name__, {...})`.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "front":
            table = node.args[1]
            lines = source.splitlines(keepends=True)
            body = "".join(_row(module, names) for module, names in given.items())
            head = lines[table.lineno - 1][: table.col_offset]
            tail = lines[(table.end_lineno or 0) - 1][table.end_col_offset :]
            lines[table.lineno - 1 : table.end_lineno] = [f"{head}{{\n{body}    }}{tail}"]
            return "".join(lines)
    raise MissingMarksError(
        "this room has no front; add __all__, __getattr__, __dir__ = front(__name__, {})"
    )


def renewed(root: Path) -> dict[Path, str]:
    """The files whose names are stale, with what they should hold."""
    stale = {}
    for path in sorted((root / "irlbook").rglob("*.py")):
        old = path.read_text(encoding="utf-8")
        if path.stem[0] != "_" and path.parent.name not in NO_ROOMS[1:]:
            new = with_all(old)
        elif path.stem == "__init__" and path.parent.name not in (*NO_ROOMS, "irlbook"):
            new = with_front(old, offers(path.parent))
        else:
            continue
        if ast.dump(ast.parse(new)) != ast.dump(ast.parse(old)):
            stale[path] = new
    return stale


def main() -> None:
    """Renew the names, or with `--check` say which are stale and fail."""
    root = find_root()
    stale = renewed(root)
    for path, text in stale.items():
        print(path.relative_to(root), "stale" if "--check" in sys.argv else "renewed")
        if "--check" not in sys.argv:
            write_atomically(path, text)
    if stale and "--check" in sys.argv:
        sys.exit("run python -m irlbook.authoring.fronts, then ruff format irlbook")


def _assigns(node: ast.stmt, name: str) -> bool:
    return isinstance(node, ast.Assign) and any(
        isinstance(target, ast.Name) and target.id == name for target in node.targets
    )


def _row(module: str, names: list[str]) -> str:
    line = f'        "{module}": [' + ", ".join(f'"{name}"' for name in names) + "],\n"
    if len(line) <= 101:
        return line
    return (
        f'        "{module}": [\n'
        + "".join(f'            "{n}",\n' for n in names)
        + "        ],\n"
    )


if __name__ == "__main__":
    main()
