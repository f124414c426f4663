"""The rules that every notebook of the book keeps, each as a small function that yields problems.

nbval compares text outputs and nothing else: it passes a notebook that was never executed, a
picture without alt text, a link that leads nowhere. These rules see those.
"""

import ast
import copy
import importlib
import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

from nbformat import NotebookNode

import irlbook
from irlbook.authoring import page
from irlbook.authoring.notebooks import COST, at, normalise, read

__all__ = [
    "IGNORED",
    "Kind",
    "MOST_IGNORED",
    "RULES",
    "Rule",
    "begins_as_chapter",
    "executed_in_order",
    "few_ignored",
    "figures_are_asserted",
    "figures_are_stored",
    "figures_have_alt",
    "has_sections",
    "installs_nothing",
    "is_normalised",
    "links_exist",
    "lint",
    "names_exist",
    "no_errors",
    "no_paths_or_addresses",
    "no_warnings",
    "notebooks_of",
    "python_of",
]

Kind = Literal["chapter", "solution", "exercise"]
Rule = Callable[[NotebookNode, Path], Iterator[str]]

IGNORED = "nbval-ignore-output"
MOST_IGNORED = 0.2

_HOME = re.compile(r"(?<![\w.:/~<-])/(?:home|Users|root|tmp)/[\w.-]+|\b[A-Z]:\\+Users\b")
_ABSOLUTE = re.compile(r"(?<![\w.:/~<-])/(?:[\w.-]+/)+[\w.-]+|\b[A-Z]:\\+\w")
_ADDRESS = re.compile(r"\b0x[0-9a-fA-F]{6,}\b")
_INSTALL = re.compile(r"\b(?:pip3?|conda|mamba|uv)\s+(?:pip\s+)?(?:install|add)\b")
_WARNING = re.compile(r"\b\w*Warning: ")
_LINK = re.compile(r"(!?)\[([^\]\n]*)\]\(<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\)")
_HTML_LINK = re.compile(r"<(img|a)\b[^>]*?\b(?:src|href)=[\"']([^\"']+)[\"'][^>]*>")
_CODE_IN_TEXT = re.compile(r"```.*?```|`[^`\n]*`|\$\$.*?\$\$|\$[^$\n]*\$", re.DOTALL)
_ASSERTS = re.compile(r"^\s*assert\b|\bassert_\w+\(|\b(verdict|learned)\(", re.MULTILINE)
_SHOWS = re.compile(r"^(?:\w+\.)*show\(", re.MULTILINE)


def lint(path: Path | str, kind: Kind | None = None) -> list[str]:
    """Every rule of the book that a notebook breaks.

    Args:
        path: the notebook.
        kind: which rules apply; told from its folder (solutions/, exercises/) when not given.

    Returns:
        One line for each problem, beginning with the cell (counted from 1); empty when all is well.

    Raises:
        NotebookError: the file is not a notebook.
    """
    path = Path(path)
    folder = path.resolve().parent.name
    kinds: dict[str, Kind] = {"solutions": "solution", "exercises": "exercise"}
    kind = kind or kinds.get(folder, "chapter")
    notebook = read(path)
    return [problem for rule in RULES[kind] for problem in rule(notebook, path)]


def notebooks_of(root: Path) -> list[Path]:
    """The notebooks of a checkout: chapters, solutions, exercises."""
    folders = ("chapters", "solutions", "exercises")
    return [path for folder in folders for path in sorted((root / folder).glob("*.ipynb"))]


def _codes(notebook: NotebookNode) -> list[tuple[int, NotebookNode]]:
    return [
        (index, cell)
        for index, cell in enumerate(notebook.cells)
        if cell.cell_type == "code" and cell.source.strip()
    ]


def _texts(cell: NotebookNode) -> str:
    """All that a code cell printed, as text."""
    texts = []
    for output in cell.outputs:
        texts.append(output.get("text", ""))
        texts += [
            value
            for mime, value in output.get("data", {}).items()
            if isinstance(value, str) and not mime.startswith("image/")
        ]
    return "\n".join(texts)


def _has_png(cell: NotebookNode) -> bool:
    return any("image/png" in output.get("data", {}) for output in cell.outputs)


# Rules of execution -------------------------------------------------------------------------------


def executed_in_order(notebook: NotebookNode, path: Path) -> Iterator[str]:
    """Counts are 1..n: nbval passes a cell that was never executed without comparing it."""
    for count, (index, cell) in enumerate(_codes(notebook), start=1):
        if cell.execution_count is None:
            yield f"{at(index, cell)} was not executed; run irlbook notebooks build"
        elif cell.execution_count != count:
            yield (
                f"{at(index, cell)} has execution count {cell.execution_count} instead of "
                f"{count}; run irlbook notebooks build"
            )


def no_errors(notebook: NotebookNode, path: Path) -> Iterator[str]:
    """No stored error: one that is meant is caught and printed."""
    for index, cell in _codes(notebook):
        for output in cell.outputs:
            if output.output_type == "error":
                yield f"{at(index, cell)} stores an error: {output.get('ename')}"


def no_warnings(notebook: NotebookNode, path: Path) -> Iterator[str]:
    """Nothing on stderr (warnings, progress bars): it differs, and it frightens readers."""
    for index, cell in _codes(notebook):
        on_stderr = [o.text for o in cell.outputs if o.get("name") == "stderr"]
        shown = _WARNING.search(_texts(cell))
        if on_stderr:
            line = "".join(on_stderr).strip().splitlines()
            yield f"{at(index, cell)} wrote to stderr: {line[-1][:80] if line else ''}"
        elif shown:
            yield f"{at(index, cell)} shows a warning: {shown.group()}"


def no_paths_or_addresses(notebook: NotebookNode, path: Path) -> Iterator[str]:
    """Nothing that is true on one computer only: absolute paths, memory addresses."""
    for index, cell in enumerate(notebook.cells):
        for found in _HOME.finditer(cell.source):
            yield f"{at(index, cell)} names a folder of one computer: {found.group()}"
        if cell.cell_type != "code":
            continue
        printed = _texts(cell)
        for what, pattern in (("an absolute path", _ABSOLUTE), ("a memory address", _ADDRESS)):
            if seen := pattern.search(printed):
                yield f"{at(index, cell)} prints {what}: {seen.group()}"


def few_ignored(notebook: NotebookNode, path: Path) -> Iterator[str]:
    """At most a fifth of the code cells may hide their output from nbval."""
    codes = _codes(notebook)
    ignored = sum(IGNORED in cell.metadata.get("tags", []) for _, cell in codes)
    if ignored > MOST_IGNORED * len(codes):
        yield (
            f"{ignored} of {len(codes)} code cells are tagged {IGNORED}, more than a fifth; "
            "print verdicts instead of digits"
        )


def is_normalised(notebook: NotebookNode, path: Path) -> Iterator[str]:
    """Built by `irlbook notebooks build`, with this version of the package."""
    version = notebook.metadata.get("irlbook", {}).get("version")
    if version != irlbook.__version__:
        built = f"built with irlbook {version}" if version else "not built"
        yield f"{built}, this is {irlbook.__version__}; run irlbook notebooks build"
    elif normalise(copy.deepcopy(notebook)) != notebook:
        yield "not as the build leaves it (an editor saved it); run irlbook notebooks build"


# Rules of figures ---------------------------------------------------------------------------------


def figures_have_alt(notebook: NotebookNode, path: Path) -> Iterator[str]:
    """Figures are png with alt text; an svg holds a date and never compares equal."""
    for index, cell in _codes(notebook):
        for output in cell.outputs:
            data = output.get("data", {})
            for mime in data:
                if mime.startswith("image/") and mime != "image/png":
                    yield f"{at(index, cell)} shows {mime}; use plotting.show, which gives a png"
            alt = output.get("metadata", {}).get("image/png", {}).get("alt", "")
            if "image/png" in data and not alt.strip():
                yield f"{at(index, cell)} shows a figure without alt text; use plotting.show"
            if "<svg" in str(data.get("text/html", "")):
                yield f"{at(index, cell)} shows an svg inside HTML; use plotting.show"


def figures_are_stored(notebook: NotebookNode, path: Path) -> Iterator[str]:
    """A cell that shows a figure stores one: nbval does not look."""
    for index, cell in _codes(notebook):
        tagged = IGNORED in cell.metadata.get("tags", [])
        if _SHOWS.search(cell.source) and not tagged and not _has_png(cell):
            yield f"{at(index, cell)} calls show, but no figure is stored"


def figures_are_asserted(notebook: NotebookNode, path: Path) -> Iterator[str]:
    """The code cell after a figure asserts what the figure shows: nbval never compares pixels.

    `learned` is a chapter's verdict on the book's own models, which reports of any other.
    """
    codes = _codes(notebook)
    for place, (index, cell) in enumerate(codes):
        if not _has_png(cell):
            continue
        if place + 1 == len(codes) or not _ASSERTS.search(codes[place + 1][1].source):
            yield (
                f"{at(index, cell)} shows a figure, and the next code cell asserts nothing "
                "about what was plotted"
            )


# Rules of text and code ---------------------------------------------------------------------------


def links_exist(notebook: NotebookNode, path: Path) -> Iterator[str]:
    """Links within the book lead to files; pictures are local and have alt text."""
    for index, cell in enumerate(notebook.cells):
        if cell.cell_type != "markdown":
            continue
        text = _CODE_IN_TEXT.sub("", cell.source)
        links = [(mark == "!", alt, target) for mark, alt, target in _LINK.findall(text)]
        for found in _HTML_LINK.finditer(text):
            alt = re.search(r"\balt=[\"']([^\"']*)", found.group())
            links.append((found.group(1) == "img", alt.group(1) if alt else "", found.group(2)))
        for is_image, alt, target in links:
            where = f"{at(index, cell)} links to {target}"
            if is_image and not alt.strip():
                yield f"{where}, a picture without alt text"
            if re.match(r"(?i)(?:https?:)?//", target):
                if is_image:
                    yield f"{where}, a picture from the network; the book works offline"
            elif target.startswith("attachment:"):
                if target.removeprefix("attachment:") not in cell.get("attachments", {}):
                    yield f"{where}, which is not attached"
            elif not re.match(r"#|mailto:", target):
                if not (path.parent / target.split("#")[0]).exists():
                    yield f"{where}, which does not exist"


def installs_nothing(notebook: NotebookNode, path: Path) -> Iterator[str]:
    """No install code: a copied pip cell is the first thing to break."""
    for index, cell in _codes(notebook):
        if _INSTALL.search(cell.source):
            yield f"{at(index, cell)} installs packages; irlbook.doctor() says what is missing"


def python_of(source: str) -> str:
    """A cell without its IPython lines (`%magic`, `!command`)."""
    if source.lstrip().startswith("%%"):
        return ""
    return re.sub(r"^(\s*)[%!].*$", r"\1pass", source, flags=re.MULTILINE)


def names_exist(notebook: NotebookNode, path: Path) -> Iterator[str]:
    """Every `irlbook.*` name in the code exists: the package must not move on without its book."""
    trees: list[tuple[int, NotebookNode, ast.Module]] = []
    for index, cell in _codes(notebook):
        try:
            trees.append((index, cell, ast.parse(python_of(cell.source))))
        except SyntaxError as error:
            yield f"{at(index, cell)} is not Python: {error.msg} in line {error.lineno}"
    bound: dict[str, str] = {}  # name in the notebook -> dotted name in the package
    rebound: set[str] = set()
    for index, cell, tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
                rebound.add(node.id)
            elif isinstance(node, ast.arg):
                rebound.add(node.arg)
            elif isinstance(node, ast.Import):
                for alias in node.names:
                    if alias.name.split(".")[0] == "irlbook":
                        name = alias.asname or "irlbook"
                        bound[name] = alias.name if alias.asname else "irlbook"
                        if problem := _missing(alias.name):
                            yield f"{at(index, cell)} imports {problem}"
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("irlbook"):
                for alias in node.names:
                    dotted = f"{node.module}.{alias.name}"
                    bound[alias.asname or alias.name] = dotted
                    if problem := _missing(dotted):
                        yield f"{at(index, cell)} imports {problem}"
    for index, cell, tree in trees:
        inner = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
        for node in ast.walk(tree):
            if not isinstance(node, ast.Attribute) or id(node) in inner:
                continue
            parts: list[str] = []
            base: ast.expr = node
            while isinstance(base, ast.Attribute):
                parts.insert(0, base.attr)
                base = base.value
            if isinstance(base, ast.Name) and base.id in bound and base.id not in rebound:
                if problem := _missing(".".join([bound[base.id], *parts])):
                    yield f"{at(index, cell)} uses {problem}"


def _missing(dotted: str) -> str | None:
    """What is missing of a dotted name, followed through packages, modules and classes."""
    first, *parts = dotted.split(".")
    thing: object = importlib.import_module(first)
    known = first
    for part in parts:
        if not (inspect.ismodule(thing) or inspect.isclass(thing)):
            return None  # what an object or a call gives cannot be told from the text
        known += f".{part}"
        if inspect.ismodule(thing) and not hasattr(thing, part):
            try:
                importlib.import_module(known)
            except ModuleNotFoundError as error:
                if error.name == known:
                    return f"{known}, which does not exist"
                return f"{known}, which needs {error.name}, and that is not installed"
        if inspect.isclass(thing) and part in getattr(thing, "__dataclass_fields__", {}):
            return None
        if not hasattr(thing, part):
            return f"{known}, which does not exist"
        thing = getattr(thing, part)
    return None


def begins_as_chapter(notebook: NotebookNode, path: Path) -> Iterator[str]:
    """First a heading with the cost filled in; the first code asks the doctor."""
    first = notebook.cells[0] if notebook.cells else None
    if first is None or first.cell_type != "markdown" or not first.source.startswith("# "):
        yield "the first cell is not a heading (# 3 · The price of information)"
    elif not (cost := COST.search(first.source)):
        yield "the first cell has no place for the cost: <!-- cost --><!-- /cost -->"
    elif not cost.group(2).strip():
        yield "the cost is not filled in; run irlbook notebooks build"
    codes = _codes(notebook)
    if not codes or "irlbook.doctor()" not in codes[0][1].source:
        yield "the first code cell does not call irlbook.doctor()"


def has_sections(notebook: NotebookNode, path: Path) -> Iterator[str]:
    """The parts that every chapter has."""
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    for name in ("Summary", "References", "Exercises"):
        if not re.search(rf"^#+ .*{name}", text, re.MULTILINE):
            yield f"there is no section called {name}"
    if "../exercises/" not in text:
        yield "there is no link to ../exercises/"
    if not re.search(r"^> \*\*(?:Is this normal\?|What goes wrong)", text, re.MULTILINE):
        yield "there is no box '> **Is this normal?**' or '> **What goes wrong.**'"


_EVERYWHERE: tuple[Rule, ...] = (links_exist, installs_nothing, names_exist, no_paths_or_addresses)
_EXECUTED: tuple[Rule, ...] = (
    executed_in_order,
    no_errors,
    no_warnings,
    is_normalised,
    figures_have_alt,
    figures_are_stored,
)
RULES: dict[Kind, tuple[Rule, ...]] = {
    "chapter": (
        *_EXECUTED,
        *_EVERYWHERE,
        few_ignored,
        figures_are_asserted,
        begins_as_chapter,
        has_sections,
        *page.RULES,
    ),
    "solution": (*_EXECUTED, *_EVERYWHERE, few_ignored),
    "exercise": _EVERYWHERE,
}
