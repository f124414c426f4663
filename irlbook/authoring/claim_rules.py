"""Rules that keep a chapter's sentences no stronger than its cells, as far as a machine can see.

A verdict that cannot fail or shows no number, a tolerance wider than its claim, a row of results
that was typed by hand, evidence that no cell shows, and many tests without a word about the family:
each has stood in a draft of this book.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from nbformat import NotebookNode

from irlbook.authoring.notebooks import REFERENCES, at

__all__ = [
    "evidence_is_shown",
    "published_rows_are_computed",
    "published_rows_have_a_source",
    "tests_form_a_family",
    "verdicts_can_fail",
    "verdicts_hide_no_tolerance",
    "verdicts_say_what_they_measured",
]

_UNSEEN = re.compile(
    r"\bnot shown\b|\bin (?:our|my) (?:own )?runs?\b|\bwe (?:also|have also) (?:ran|tried)\b",
    re.IGNORECASE,
)
_TESTS = {"permutation_test", "ttest_1samp", "ttest_ind", "ttest_rel", "wilcoxon"}
_CLOSE = {"allclose", "isclose"}
_SIZES = (ast.Lt, ast.LtE, ast.Gt, ast.GtE)
_BOUND = re.compile(r"\b(?:to|below|within|above|than) (?:\de-\d+|0\.\d+|\{\w+:g\})")
_YEAR = re.compile(r"\b(?:19|20)\d\d\b")


def verdicts_can_fail(notebook: NotebookNode, path: Path) -> Iterator[str]:
    """The condition of a verdict is measured: `verdict("...", True)` proves nothing."""
    for where, call in _calls(notebook, "verdict"):
        holds = _argument(call, 1, "holds")
        if holds is not None and _is_literal(holds):
            yield f"{where} has a verdict that cannot fail; give it the comparison itself"


def verdicts_say_what_they_measured(notebook: NotebookNode, path: Path) -> Iterator[str]:
    """A verdict about sizes prints `measured=`, or its claim bounds the error: "..., to 1e-12".

    A comparison by == alone, of sets or of shapes, say, measures nothing that could be printed.
    """
    for where, call in _calls(notebook, "verdict"):
        claim, holds = _argument(call, 0, "claim"), _argument(call, 1, "holds")
        shown = any(keyword.arg == "measured" for keyword in call.keywords)
        bounded = claim is not None and _BOUND.search(ast.unparse(claim))
        if holds is not None and _compares_sizes(holds) and not shown and not bounded:
            yield f"{where} has a verdict about numbers that shows none; give it measured=..."


def verdicts_hide_no_tolerance(notebook: NotebookNode, path: Path) -> Iterator[str]:
    """`allclose(a, b, atol=1e-12)` also allows 1e-5 of b, so it does not hold "to 1e-12"."""
    for where, call in _calls(notebook, "verdict"):
        holds = _argument(call, 1, "holds")
        for close in ast.walk(holds) if holds is not None else ():
            if (
                isinstance(close, ast.Call)
                and _last_name(close) in _CLOSE
                and all(keyword.arg != "rtol" for keyword in close.keywords)
            ):
                yield (
                    f"{where} has a verdict by {_last_name(close)} without rtol, which is 1e-5 "
                    "then; compare np.abs(a - b).max() with the bound that the claim names"
                )


def published_rows_are_computed(notebook: NotebookNode, path: Path) -> Iterator[str]:
    """What is ours in a table of published results comes out of a computation."""
    for where, call in _calls(notebook, "PublishedResult"):
        ours = _argument(call, 3, "ours")
        if ours is not None and _is_literal(ours):
            yield f"{where} types what is ours by hand ({ast.unparse(ours)[:40]}); compute it"


def published_rows_have_a_source(notebook: NotebookNode, path: Path) -> Iterator[str]:
    """A published row names a paper with its year, and the References hold its first author."""
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    references = text[found.start() :] if (found := REFERENCES.search(text)) else ""
    for where, call in _calls(notebook, "PublishedResult"):
        paper = _argument(call, 0, "paper")
        if not isinstance(paper, ast.Constant) or not isinstance(paper.value, str):
            continue  # a name that is put together cannot be read from the text
        author = re.match(r"[\W_]*([^\W\d_]+(?:[-'’][^\W\d_]+)*)", paper.value)
        if not _YEAR.search(paper.value):
            yield f"{where} has a published row without a year: {paper.value!r}"
        elif author is None or author.group(1) not in references:
            yield f"{where} has a published row that the References do not hold: {paper.value!r}"


def evidence_is_shown(notebook: NotebookNode, path: Path) -> Iterator[str]:
    """No "in our run" and no "not shown": what is said was measured where the reader sees it."""
    for index, cell in enumerate(notebook.cells):
        if cell.cell_type == "markdown" and (found := _UNSEEN.search(cell.source)):
            yield (
                f"{at(index, cell)} says {found.group()!r}; show the cell that "
                "measures it, or take the sentence out"
            )


def tests_form_a_family(notebook: NotebookNode, path: Path) -> Iterator[str]:
    """A chapter that tests over seeds collects its tests in one `Claims`, with one correction."""
    tests = [where for name in _TESTS for where, _ in _calls(notebook, name)]
    if tests and not list(_calls(notebook, "Claims")):
        yield f"{tests[0]} tests a claim outside of a family; collect all in irlbook.claims.Claims"


def _calls(notebook: NotebookNode, name: str) -> Iterator[tuple[str, ast.Call]]:
    """(place, call) of a function by its last name."""
    for index, cell in enumerate(notebook.cells):
        if cell.cell_type != "code":
            continue
        try:
            tree = ast.parse(re.sub(r"^(\s*)[%!].*$", r"\1pass", cell.source, flags=re.MULTILINE))
        except SyntaxError:
            continue  # another rule says so
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and _last_name(node) == name:
                yield at(index, cell), node


def _last_name(call: ast.Call) -> str | None:
    """`verdict` of verdict(...) and of stats.verdict(...)."""
    called = call.func
    if isinstance(called, ast.Attribute):
        return called.attr
    return called.id if isinstance(called, ast.Name) else None


def _argument(call: ast.Call, place: int, name: str) -> ast.expr | None:
    for keyword in call.keywords:
        if keyword.arg == name:
            return keyword.value
    if len(call.args) > place and not any(isinstance(a, ast.Starred) for a in call.args):
        return call.args[place]
    return None


def _compares_sizes(node: ast.expr) -> bool:
    """Whether a condition puts numbers in order, or calls them close."""
    return any(
        (isinstance(part, ast.Compare) and any(isinstance(op, _SIZES) for op in part.ops))
        or (isinstance(part, ast.Call) and _last_name(part) in _CLOSE)
        for part in ast.walk(node)
    )


def _is_literal(node: ast.expr) -> bool:
    """Whether nothing in an expression was computed before it."""
    return not any(isinstance(part, ast.Name | ast.Call | ast.Attribute) for part in ast.walk(node))
