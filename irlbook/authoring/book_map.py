"""From a symbol to its function, and from a function to its chapters: `docs/map.md`.

The symbols are those of `docs/notation.md`, the functions those that the library defines, and the
chapters those whose code uses them, so the page cannot say what is not so.
"""

import ast
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from nbformat import NotebookNode

from irlbook.authoring.fronts import definitions
from irlbook.authoring.lint import python_of
from irlbook.authoring.notebooks import read
from irlbook.authoring.repository import chapters

__all__ = ["HEAD", "book_map", "homes", "used_in", "uses"]

HEAD = """# From symbols to code to chapters

Made by `irlbook notebooks map` from [the notation](notation.md), the library and the imports of the
chapters. The reference of the website says what each function takes and gives.
"""

_ROW = re.compile(r"^\| (?P<symbol>.+?) \| (?P<code>[^|]*) \| (?P<meaning>.+) \|$")


def homes(root: Path) -> dict[str, list[str]]:
    """Each function, class and `Class.attribute` of the floors below the lessons: its modules."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in sorted((root / "irlbook").rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        if path.stem[0] == "_" or parts[1] in ("authoring", "cli", "exercises"):
            continue
        source = path.read_text(encoding="utf-8")
        for name in [*definitions(source, callables=True), *_attributes(source)]:
            found[name].append(".".join(parts))
    return dict(found)


def _attributes(source: str) -> Iterator[str]:
    for node in (node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)):
        for part in node.body:
            if isinstance(part, ast.FunctionDef):
                yield f"{node.name}.{part.name}"
            elif isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name):
                yield f"{node.name}.{part.target.id}"


def uses(notebook: NotebookNode) -> set[str]:
    """The dotted names of irlbook that the code of a notebook imports or reads from a module."""
    trees = [
        ast.parse(python_of(cell.source)) for cell in notebook.cells if cell.cell_type == "code"
    ]
    bound = {"irlbook": "irlbook"}
    for node in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "irlbook":
            for alias in node.names:
                bound[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return set(bound.values()) | {
        name for tree in trees for node in ast.walk(tree) for name in _dotted(node, bound)
    }


def _dotted(node: ast.AST, bound: Mapping[str, str]) -> Iterator[str]:
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.insert(0, node.attr)
        node = node.value
    if parts and isinstance(node, ast.Name) and node.id in bound:
        yield ".".join([bound[node.id], *parts])


def used_in(root: Path, known: Mapping[str, list[str]]) -> dict[str, list[Path]]:
    """For each function as `module.name`, the chapters that use it, in order."""
    found: dict[str, list[Path]] = defaultdict(list)
    for path in chapters(root):
        here = set()
        for dotted in uses(read(path)):
            room, _, name = dotted.rpartition(".")
            at = [m for m in known.get(name, []) if m == room or m.startswith(f"{room}.")]
            if len(at) == 1 or room in at:
                here.add(f"{room if room in at else at[0]}.{name}")
        for dotted in here:
            found[dotted].append(path)
    return dict(found)


def book_map(root: Path) -> str:
    """The page, as markdown."""
    known = homes(root)
    where = used_in(root, known)
    lines = [HEAD, "## By symbol\n", "| symbol | function | chapters |", "|---|---|---|"]
    for line in (root / "docs" / "notation.md").read_text(encoding="utf-8").splitlines():
        row = _ROW.match(line)
        if row is None or row["symbol"] == "symbol":
            continue
        for name in re.findall(r"`([A-Za-z_][\w.]*)`", row["code"]):
            found = [f"{module}.{name}" for module in known.get(name, [])]
            for full in [full for full in found if full in where] or found:
                lines.append(f"| {row['symbol']} | `{full}` | {_links(where.get(full, []))} |")
    lines += ["", "## By function\n", "| function | chapters |", "|---|---|"]
    lines += [f"| `{name}` | {_links(paths)} |" for name, paths in sorted(where.items())]
    return "\n".join(lines) + "\n"


def _links(paths: Iterable[Path]) -> str:
    return ", ".join(f"[{int(path.stem[:2])}](../chapters/{path.name})" for path in paths)
