"""Text and tables that fit the page: in JupyterLab, on the website, on a phone, in a terminal.

A table is shown as HTML, with a plain-text twin no wider than `WIDTH` for a terminal and for nbval,
which compares both. It needs no JavaScript; its style travels with it, and where a page strips the
style (JupyterLab does, until a notebook is trusted) it is still a table with wrapped cells.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

import numpy as np

from irlbook.errors import ShapeError

__all__ = [
    "Cell",
    "STYLE",
    "WIDTH",
    "badge",
    "cell_text",
    "html_table",
    "publish",
    "say",
    "show_table",
    "text_table",
]

WIDTH = 100
"""The most characters in a line of text that a chapter prints."""

Cell = str | int | float
"""What stands in a table; a number that is not whole is shown with four digits."""

STYLE = """<style>
.irlbook-table {container-type: inline-size; overflow-x: auto; margin: 0.5em 0}
.irlbook-table table {border-collapse: collapse; margin: 0; width: auto; table-layout: auto}
.irlbook-table :is(th, td) {text-align: left; vertical-align: top; padding: 0.35em 0.7em;
 white-space: normal; overflow-wrap: break-word; border: 0; border-bottom: 1px solid #8886}
.irlbook-table :is(th, td).number {text-align: right; font-variant-numeric: tabular-nums}
.irlbook-table tbody th {font-weight: normal}
.irlbook-table .name {display: none}
@container (max-width: 32rem) {
 .irlbook-table .rows, .irlbook-table .rows :is(tbody, tr, th, td) {display: block; width: auto}
 .irlbook-table .rows thead {display: none}
 .irlbook-table .rows :is(th, td) {border: 0; padding: 0.2em 0.7em}
 .irlbook-table .rows tr {border-bottom: 1px solid #8888; padding: 0.3em 0}
 .irlbook-table .rows .name {display: inline; font-weight: bold}
}
</style>"""

_BADGES: dict[str, tuple[str, str]] = {
    "yes": ("✓", "background-color: #d7f0e5; color: #00523b"),
    "part": ("≈", "background-color: #fdeccb; color: #5c3d00"),
    "no": ("✗", "background-color: #fbdccd; color: #7a2900"),
    "open": ("?", "background-color: #e6e6e6; color: #333333"),
}


def publish(data: dict[str, Any], metadata: dict[str, Any] | None = None) -> bool:
    """Display `data`, by media type, in the notebook; False where there is none."""
    try:
        from IPython import get_ipython
        from IPython.display import display
    except ImportError:
        return False
    if get_ipython() is None:
        return False
    display(data, raw=True, metadata=metadata or {})
    return True


def say(line: str) -> None:
    """Print a sentence; one that is longer than `WIDTH` goes on in the next line, indented."""
    if len(line) > WIDTH:
        line = textwrap.fill(
            line, WIDTH, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False
        )
    print(line)


def show_table(
    header: Sequence[str], rows: Iterable[Sequence[Cell]], *, stack: bool = False
) -> None:
    """Show a table that is readable in any width.

    Args:
        header: the names of the columns.
        rows: one cell a column each; a column in which all are numbers is set to the right.
        stack: on a narrow page each row becomes a block with one line a cell, for rows of words;
            else the table scrolls sideways inside its own frame.

    Raises:
        ShapeError: a row has another number of cells than the header.
    """
    texts = [[cell_text(cell) for cell in row] for row in rows]
    _check(header, texts)
    right = _numbers(header, texts)
    names = [escape(name) for name in header]
    body = [[escape(text) for text in row] for row in texts]
    plain = text_table(header, texts)
    if not publish({"text/html": html_table(names, body, right, stack), "text/plain": plain}):
        print(plain)


def html_table(
    names: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[bool], stack: bool
) -> str:
    """A table as HTML; names and cells are HTML already."""
    kinds = [' class="number"' if number else ' style="text-align: left"' for number in right]
    head = "".join(
        f'<th scope="col"{kind}>{name}</th>' for name, kind in zip(names, kinds, strict=True)
    )
    lines = [f"<tr>{head}</tr>"]
    for row in rows:
        cells = [f'<th scope="row"{kinds[0]}>{row[0]}</th>']
        for name, kind, cell in zip(names[1:], kinds[1:], row[1:], strict=True):
            label = f'<span class="name">{name}: </span>' if stack else ""
            cells.append(f"<td{kind}>{label}{cell}</td>")
        lines.append("<tr>" + "".join(cells) + "</tr>")
    # A frame that scrolls is reached by keys; one whose rows are stacked never scrolls.
    frame = '<div class="irlbook-table">' if stack else '<div class="irlbook-table" tabindex="0">'
    return "\n".join(
        [
            STYLE,
            frame,
            '<table class="rows">' if stack else "<table>",
            f"<thead>{lines[0]}</thead>",
            "<tbody>",
            *lines[1:],
            "</tbody></table></div>",
        ]
    )


def text_table(
    header: Sequence[str], rows: Sequence[Sequence[str]], width: int = WIDTH, gap: str = "  "
) -> str:
    """A table as text, its cells wrapped so that no line is longer than `width`.

    The widest columns give way first; a word that is wider than its column is broken.

    Raises:
        ShapeError: a row has another number of cells than the header, or there are more columns
            than fit.
    """
    _check(header, rows)
    room = width - len(gap) * (len(header) - 1)
    if room < 4 * len(header):
        raise ShapeError(f"{len(header)} columns do not fit into {width} characters; show fewer")
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    while sum(widths) > room:
        widths[int(np.argmax(widths))] -= 1
    right = _numbers(header, rows)
    wrapped = [_lines(header, widths, right, gap), [gap.join("-" * width for width in widths)]]
    wrapped += [_lines(row, widths, right, gap) for row in rows]
    return "\n".join(line for lines in wrapped for line in lines)


def _lines(row: Sequence[str], widths: Sequence[int], right: Sequence[bool], gap: str) -> list[str]:
    """One row of a text table, as many lines as its longest cell takes."""
    cells = [
        textwrap.wrap(text, width, break_on_hyphens=False) or [""]
        for text, width in zip(row, widths, strict=True)
    ]
    height = max(map(len, cells))
    columns = [
        [line.rjust(width) if number else line.ljust(width) for line in cell]
        + [" " * width] * (height - len(cell))
        for cell, width, number in zip(cells, widths, right, strict=True)
    ]
    return [gap.join(parts).rstrip() for parts in zip(*columns, strict=True)]


def badge(text: str, kind: str) -> str:
    """A verdict as HTML: a mark, a colour and the words, so that the colour never stands alone.

    Args:
        text: the words, not escaped.
        kind: "yes", "part", "no" or "open".
    """
    mark, colours = _BADGES[kind]
    style = f"{colours}; padding: 0.1em 0.45em; border-radius: 0.3em"
    return f'<span style="{style}">{mark} {escape(text)}</span>'


def cell_text(cell: Cell) -> str:
    """How a cell is written: text as it is, a number that is not whole with four digits."""
    return f"{cell:.4g}" if isinstance(cell, float | np.floating) else str(cell)


def _numbers(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[bool]:
    """Which columns hold nothing but numbers; those are set to the right."""
    return [bool(rows) and all(_is_number(row[k]) for row in rows) for k in range(len(header))]


def _is_number(text: str) -> bool:
    try:
        float(text.replace("−", "-").rstrip("%").replace(",", "") or "nan")
    except ValueError:
        return False
    return True


def _check(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    for row in rows:
        if len(row) != len(header):
            raise ShapeError(f"a row of {len(row)} cells in a table of {len(header)} columns")
