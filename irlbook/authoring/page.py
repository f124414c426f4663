"""How a chapter looks as a page: what code is seen, how long it is, and what does not fit.

    python -m irlbook.authoring.page            # a line for each chapter
    python -m irlbook.authoring.page 06         # every cell of a chapter that breaks a rule

Code that teaches is seen; code that serves (it plots, asserts, tabulates) is folded by the tag
`hide-input`. The height of the page is estimated, in pixels of the website's column (688 px wide):
a line of text holds 88 characters and is 26 px high, a line of code or of printed text 17.5 px, a
displayed equation, a heading and a row of a table have fixed heights, a figure has its own. The
share of visible code is that of the visible cells, their frames with them, in this height.
"""

from __future__ import annotations

import ast
import math
import re
import struct
import sys
from base64 import b64decode
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from nbformat import NotebookNode

from irlbook.authoring.notebooks import HIDDEN, at, read
from irlbook.display import WIDTH

__all__ = [
    "LONGEST",
    "LONGEST_VISIBLE",
    "MOST_VISIBLE",
    "Page",
    "RULES",
    "cells_are_short",
    "claims_follow_prose",
    "little_code_is_visible",
    "measure",
    "printed_text_fits",
    "serves",
    "serving_code_is_folded",
    "visible_cells_are_short",
]

LONGEST = 60  # lines of a cell
LONGEST_VISIBLE = 40  # lines of a cell that is not folded
MOST_VISIBLE = 1 / 3  # of the height of a page

_COLUMN, _LETTERS = 688, 88  # the website's column: pixels, and characters of text in a line
_TEXT, _CODE, _EQUATION, _HEADING, _ROW = 26.0, 17.5, 62.0, 66.0, 38.0  # heights in pixels
_FRAME, _FOLDED, _GAP = 38.0, 44.0, 20.0  # around a cell of code; a folded one; between paragraphs

_DISPLAYED = re.compile(r"\$\$.*?\$\$|\\begin\{(\w+\*?)\}.*?\\end\{\1\}", re.DOTALL)
_TERM = re.compile(r"(?<![*\w])\*(?![*\s])[^*\n]+(?<![\s*])\*(?![*\w])")
_CLAIMS = re.compile(r"(?:.*\.)?(?:verdict|conclude)$")


@dataclass(frozen=True)
class Page:
    """What a chapter looks like.

    Attributes:
        height: of the page, in pixels, estimated.
        visible: the part of it that is visible code, 0 to 1.
        longest: lines of the longest cell of code.
        longest_visible: lines of the longest cell of code that is not folded.
        folded: cells of code that are folded, of `cells`.
        terms: how many terms are set in emphasis in the text.
    """

    height: float
    visible: float
    longest: int
    longest_visible: int
    folded: int
    cells: int
    terms: int


def measure(notebook: NotebookNode) -> Page:
    """The measures of a chapter; the heights are explained at the top of this module."""
    height = seen = 0.0
    codes = [cell for _, cell in _codes(notebook)]
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            height += _text_height(cell.source)
        elif cell.cell_type == "code" and cell.source.strip():
            code = _CODE * len(cell.source.splitlines()) + _FRAME
            seen += 0 if _folded(cell) else code
            height += _FOLDED if _folded(cell) else code
            height += sum(map(_output_height, cell.outputs))
    lengths = [len(cell.source.splitlines()) for cell in codes]
    shown = [len(cell.source.splitlines()) for cell in codes if not _folded(cell)]
    terms = {
        term
        for cell in notebook.cells
        if cell.cell_type == "markdown"
        for term in _TERM.findall(_DISPLAYED.sub("", cell.source))
    }
    return Page(
        height,
        seen / height if height else 0.0,
        max(lengths, default=0),
        max(shown, default=0),
        len(lengths) - len(shown),
        len(lengths),
        len(terms),
    )


def _text_height(source: str) -> float:
    height = _EQUATION * len(_DISPLAYED.findall(source))
    for paragraph in re.split(r"\n\s*\n", _DISPLAYED.sub("", source)):
        lines = [line for line in paragraph.splitlines() if line.strip()]
        if not lines:
            continue
        if lines[0].startswith("#"):
            height += _HEADING
            lines = lines[1:]
        rows = [line for line in lines if line.lstrip().startswith("|")]
        items = re.split(r"\n(?=\s*(?:[-*]|\d+\.) )", "\n".join(x for x in lines if x not in rows))
        height += _ROW * len(rows) + _GAP
        height += sum(_TEXT * math.ceil(len(item) / _LETTERS) for item in items)
    return height


def _output_height(output: NotebookNode) -> float:
    data = output.get("data", {})
    if "image/png" in data:
        wide, high = struct.unpack(">II", b64decode(data["image/png"])[16:24])
        return high * min(1.0, _COLUMN / wide) + _GAP
    lines = (output.get("text") or data.get("text/plain", "")).splitlines()
    return (_TEXT if "text/html" in data else _CODE) * len(lines) + _GAP


# Rules --------------------------------------------------------------------------------------------


def visible_cells_are_short(notebook: NotebookNode, path: Path) -> Iterator[str]:
    """A cell that is to be read fits the screen."""
    for where, cell in _codes(notebook):
        lines = len(cell.source.splitlines())
        if lines > LONGEST_VISIBLE and not _folded(cell):
            yield (
                f"{where} shows {lines} lines of code, more than {LONGEST_VISIBLE}; split it, fold "
                f"it with the tag {HIDDEN}, or move what does not teach into the library"
            )


def cells_are_short(notebook: NotebookNode, path: Path) -> Iterator[str]:
    """No cell is a program of its own, folded or not."""
    for where, cell in _codes(notebook):
        lines = len(cell.source.splitlines())
        if lines > LONGEST:
            yield (
                f"{where} has {lines} lines of code, more than {LONGEST}; split it, or move what "
                "does not teach into the library"
            )


def little_code_is_visible(notebook: NotebookNode, path: Path) -> Iterator[str]:
    """A chapter is a page to read: at most a third of its height is code that is seen."""
    page = measure(notebook)
    if page.visible > MOST_VISIBLE:
        yield (
            f"{page.visible:.0%} of the page is visible code, more than a third; fold what serves "
            f"with the tag {HIDDEN}"
        )


def serving_code_is_folded(notebook: NotebookNode, path: Path) -> Iterator[str]:
    """A cell that only plots, asserts or tabulates is folded."""
    for where, cell in _codes(notebook):
        if not _folded(cell) and serves(cell.source):
            yield f"{where} only plots, asserts or tabulates; give it the tag {HIDDEN}"


def printed_text_fits(notebook: NotebookNode, path: Path) -> Iterator[str]:
    """No line of printed text is wider than the page: it would wrap or be cut off."""
    for where, cell in _codes(notebook):
        for output in cell.outputs:
            data = output.get("data", {})
            if "image/png" in data:
                continue  # what stands for a figure is not shown beside it
            text = output.get("text") or data.get("text/plain", "")
            widest = max(map(len, text.splitlines()), default=0)
            if widest > WIDTH:
                yield (
                    f"{where} prints a line of {widest} characters, more than {WIDTH}; use "
                    "display.show_table for a table, display.say for a sentence"
                )


def claims_follow_prose(notebook: NotebookNode, path: Path) -> Iterator[str]:
    """A block of claims stands near the text that says what is looked at, or at its figure.

    Between the text and the claims lies one other cell of code at most: the one that they are of.
    """
    between = 0
    for where, cell in _cells(notebook):
        if cell.cell_type == "markdown" or "image/png" in str(cell.get("outputs", "")):
            between = 0
        elif cell.cell_type == "code" and not _claims(cell.source):
            between += 1
        elif cell.cell_type == "code" and between > 1:
            yield (
                f"{where} claims something after {between} cells of code; say what, in a text "
                "before it"
            )
            between = 1  # the rest of the block needs no text of its own


def _cells(notebook: NotebookNode) -> Iterator[tuple[str, NotebookNode]]:
    for index, cell in enumerate(notebook.cells):
        if cell.source.strip():
            yield at(index, cell), cell


def _codes(notebook: NotebookNode) -> Iterator[tuple[str, NotebookNode]]:
    return ((where, cell) for where, cell in _cells(notebook) if cell.cell_type == "code")


def _folded(cell: NotebookNode) -> bool:
    return HIDDEN in cell.metadata.get("tags", [])


# What serves --------------------------------------------------------------------------------------

_SERVING = re.compile(
    r"(?:.*\.)?(?:print|say|verdict|published_table|show_table|show|conclude|display|legend)$"
    r"|(?:plt|plotting|fig|figure|ax(?:es)?|(?:left|right|top|bottom|upper|lower)(?:_ax)?|\w*_ax|ax_\w+)"
    r"(?:\[.*\])?\..+$|(?:np\.testing\.|torch\.testing\.)?assert_\w+$"
)
_MAKES_FIGURES = re.compile(r"plt\.(?:subplots|figure|cm\.\w+)$|.*\.add_subplot$|.*\.twinx$")


def _claims(source: str) -> bool:
    """Whether a cell states a claim, outside of the functions that it defines."""
    return any(
        isinstance(call, ast.Call) and _CLAIMS.match(ast.unparse(call.func))
        for node in _statements(source)
        if not isinstance(node, ast.FunctionDef)
        for call in ast.walk(node)
    )


def _statements(source: str) -> list[ast.stmt]:
    """The statements of a cell; none if it is not Python, which another rule says."""
    try:
        return ast.parse(re.sub(r"^(\s*)[%!].*$", r"\1pass", source, flags=re.MULTILINE)).body
    except SyntaxError:
        return []


def serves(source: str) -> bool:
    """Whether a cell only plots, asserts or tabulates: each statement draws, prints or checks.

    An assignment counts as serving when it makes a figure or axes; what computes is left to
    judgement, so this says True only where there is nothing to think about.
    """
    body = _statements(source)
    return bool(body) and all(map(_serves, body))


def _serves(node: ast.stmt) -> bool:
    if isinstance(node, ast.Assert | ast.Pass):
        return True
    if isinstance(node, ast.Expr):
        value = node.value
        if isinstance(value, ast.Call):
            return bool(_SERVING.match(ast.unparse(value.func)))
        return isinstance(value, ast.Constant)
    if isinstance(node, ast.Assign):
        value = node.value
        return isinstance(value, ast.Call) and bool(_MAKES_FIGURES.match(ast.unparse(value.func)))
    if isinstance(node, ast.For | ast.With | ast.If):
        return all(map(_serves, [*node.body, *getattr(node, "orelse", [])]))
    return False


RULES = (
    visible_cells_are_short,
    cells_are_short,
    little_code_is_visible,
    serving_code_is_folded,
    printed_text_fits,
    claims_follow_prose,
)


def _report(arguments: list[str]) -> int:
    """Print the measures of the chapters, or of one chapter what it breaks; 1 if it does."""
    from irlbook.authoring.repository import chapters, find_chapter, find_root

    root = find_root()
    if arguments:
        broken = 0
        for path in (find_chapter(name, root) for name in arguments):
            for rule in RULES:
                for problem in rule(read(path), path):
                    broken += 1
                    print(f"{path.stem}: {problem}")
        return int(broken > 0)
    print("chapter  visible code  longest visible  longest  folded   terms  height  breaks")
    for path in chapters(root):
        notebook = read(path)
        page = measure(notebook)
        breaks = [rule.__name__ for rule in RULES if list(rule(notebook, path))]
        print(
            f"{path.stem[:2]:7}  {page.visible:12.0%}  {page.longest_visible:15}  "
            f"{page.longest:7}  {page.folded:2} of {page.cells:2}  {page.terms:5}  "
            f"{page.height:6.0f}  {' '.join(breaks) or '-'}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(_report(sys.argv[1:]))
