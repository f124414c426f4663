"""docs/wrong_answers.csv: what each check demands, and which wrong answer breaks what.

A check states each demand as `property="..."`, and names the mistakes that it recognises. A wrong
answer says by a regular expression what it must be told. Here they are brought together by their
texts, without running anything; the tests run the answers and match their patterns.
Run `python -m irlbook.authoring.requirements` after a card, a check or a wrong answer changed.
"""

from __future__ import annotations

import argparse
import ast
import csv
import inspect
import io
import itertools
import re
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from irlbook.authoring.notebooks import write_atomically
from irlbook.authoring.repository import find_root
from irlbook.exercises.model import Exercise, all_exercises

__all__ = ["Demand", "HEAD", "PAGE", "demands", "main", "renewed", "rows"]

PAGE = Path("docs") / "wrong_answers.csv"
_Names = dict[str, list[ast.AST]]  # what a name is set to, as expressions
HEAD = ("exercise", "title", "what must hold", "wrong answer", "what the message says besides")


@dataclass(frozen=True)
class Demand:
    """What a check says must hold, and the mistakes that it recognises where that fails."""

    text: str
    mistakes: tuple[str, ...] = ()
    besides: tuple[str, ...] = ()  # what the call says besides: its hint, a detail


def _functions(check: Callable[..., Any]) -> Iterator[tuple[ast.AST, _Names]]:
    """The source of a check and of the functions of its module that it calls, each once.

    With each: what the names in it are set to, the module's numbers (THESE, in capitals) included.
    """
    waiting, seen = [check], {check}
    while waiting:
        function = waiting.pop(0)
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
        numbers: _Names = {
            name: [ast.Constant(value)]
            for name, value in function.__globals__.items()
            if name.isupper() and type(value) in (int, float)
        }
        yield tree, numbers | _names(tree)
        for node in ast.walk(tree):
            other = function.__globals__.get(node.id) if isinstance(node, ast.Name) else None
            if (
                inspect.isfunction(other)
                and other not in seen
                and other.__module__.startswith("irlbook.exercises.chapters.")
            ):
                seen.add(other)
                waiting.append(other)


def _elements(node: ast.AST, names: _Names) -> list[ast.AST]:
    """The expressions that a loop over an expression goes through, where they are written out."""
    if isinstance(node, (ast.Tuple, ast.List, ast.Set)):
        return list(node.elts)
    if isinstance(node, ast.Dict):
        return [key for key in node.keys if key is not None]
    if isinstance(node, ast.Name):
        return [e for value in names.get(node.id, []) for e in _elements(value, {})]
    function = getattr(node, "func", None)
    if isinstance(function, ast.Attribute) and function.attr == "items":
        owner = function.value
        dicts = names.get(owner.id, []) if isinstance(owner, ast.Name) else [owner]
        return [
            ast.Tuple([key, value], ast.Load())
            for each in dicts
            if isinstance(each, ast.Dict)
            for key, value in zip(each.keys, each.values, strict=True)
            if key is not None
        ]
    return []


def _bind(target: ast.AST, value: ast.AST, names: _Names) -> None:
    """Note what the names of a target are when it is given a value."""
    if isinstance(target, ast.Name):
        names.setdefault(target.id, []).append(value)
    elif isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
        for part, inner in zip(target.elts, value.elts, strict=False):
            _bind(part, inner, names)


def _names(tree: ast.AST) -> _Names:
    """What each name of a piece of code is set to; inner scopes are not told apart."""
    names: _Names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                _bind(target, node.value, names)
    for node in ast.walk(tree):
        if isinstance(node, (ast.For, ast.comprehension)):
            for element in _elements(node.iter, names):
                _bind(node.target, element, names)
    return names


def _texts(node: ast.AST | None, names: _Names | None = None) -> list[str]:
    """The texts that an expression can be; a part that is computed is written as "…".

    A name is the texts that it is set to, where `names` says them; a number in capitals is written
    as the message prints it.
    """
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [node.value]
    if isinstance(node, ast.Name) and names:
        rest = {name: values for name, values in names.items() if name != node.id}
        return [text for value in names.get(node.id, []) for text in _texts(value, rest)]
    if isinstance(node, ast.FormattedValue):
        return _texts(node.value, names) or _printed(node, names or {})
    if isinstance(node, ast.IfExp):
        return _texts(node.body, names) + _texts(node.orelse, names)
    if isinstance(node, ast.JoinedStr):
        parts = [list(dict.fromkeys(_texts(part, names))) or ["…"] for part in node.values]
        return ["".join(chosen) for chosen in itertools.product(*parts)]
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        ends = (_texts(node.left, names) or ["…"], _texts(node.right, names) or ["…"])
        return [a + b for a in ends[0] for b in ends[1]]
    return []


def _printed(node: ast.FormattedValue, names: _Names) -> list[str]:
    """A number of the module as an f-string prints it; nothing where it is not known."""
    known = names.get(node.value.id, []) if isinstance(node.value, ast.Name) else []
    if not (isinstance(node.value, ast.Name) and node.value.id.isupper() and len(known) == 1):
        return []
    form = "".join(_texts(node.format_spec)) if node.format_spec else ""
    number = getattr(known[0], "value", None)
    return [format(number, form)] if isinstance(number, (int, float)) else []


def _keys(tree: ast.AST) -> list[str]:
    """The texts that are keys of dicts in a piece of code, or set as such."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict):
            found += [text for key in node.keys for text in _texts(key)]
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Subscript):
                    found += _texts(target.slice)
    return [text for text in found if " " in text]


def _words(tree: ast.AST) -> list[str]:
    """All texts of several words in a piece of code."""
    return [text for node in ast.walk(tree) for text in _texts(node) if " " in text]


def demands(check: Callable[..., Any]) -> list[Demand]:
    """What a check demands, in the order of its source, each text once."""
    found: dict[str, tuple[list[str], list[str]]] = {}
    for tree, names in _functions(check):
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
        for call in sorted(calls, key=lambda c: (c.lineno, c.col_offset)):
            given = {keyword.arg: keyword.value for keyword in call.keywords}
            name = getattr(call.func, "id", getattr(call.func, "attr", ""))
            stated = _texts(given.get("property"), names)
            if name in ("fail", "CheckFailed") and call.args:
                stated += _texts(call.args[0], names)
            told, seen = given.get("mistakes"), _texts(given.get("detail"), names)
            keys = [] if told is None else _keys(tree if isinstance(told, ast.Name) else told)
            if "it looks as if …" in seen:  # the check compares with the mistakes itself
                keys += _keys(tree)
            for text in stated:
                mistakes, besides = found.setdefault(text, ([], []))
                mistakes += keys
                besides += [word for word in [*_words(call), *seen] if word not in (text, *keys)]
    return [Demand(text, tuple(m), tuple(b)) for text, (m, b) in found.items()]


def rows(exercise: Exercise) -> list[tuple[str, ...]]:
    """The list of one exercise: each wrong answer with each demand that it may be told.

    Where the message is put together elsewhere in the check, its words stand alone, without a
    demand; where they come from outside (an error of the answer's own, a shape), it is the pattern.
    """
    if exercise.check is None:
        return []
    stated, found = demands(exercise.check), []
    elsewhere = [("", text) for tree, _ in _functions(exercise.check) for text in _words(tree)]
    words = [(demand.text, text) for demand in stated for text in demand.besides] + elsewhere
    for name, (_, pattern) in exercise.wrong_answers.items():
        own = []
        for demand in stated:
            seen = [m for m in demand.mistakes if re.search(pattern, f"it looks as if {m}")]
            if seen or re.search(pattern, f"  fails: {demand.text}"):
                own.append((demand.text, name, f"it looks as if {seen[0]}" if seen else ""))
        if not own:
            told = next((both for both in words if re.search(pattern, both[1])), ("", pattern))
            own = [(told[0], name, told[1])]
        found += own
    used = {row[0] for row in found}
    found += [(demand.text, "", "") for demand in stated if demand.text not in used]
    place = {demand.text: number for number, demand in enumerate(stated)}
    found.sort(key=lambda row: place.get(row[0], len(place)))
    return [(exercise.id, exercise.title, *row) for row in found]


def renewed() -> str:
    """The list of the whole book as it should be."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEAD)
    for exercise in all_exercises():
        if exercise.chapter < "90":  # the demonstration chapters of the tests come after the book
            writer.writerows(rows(exercise))
    return text.getvalue()


def main() -> int:
    """Write the list where it is not up to date."""
    argparse.ArgumentParser(
        prog="python -m irlbook.authoring.requirements", description=f"Renew {PAGE.as_posix()}."
    ).parse_args()
    path = find_root() / PAGE
    text = renewed()
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        write_atomically(path, text)
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
