"""Calling the student's function: the same way in the notebook and across a process border.

`serve` runs on the student's side: it decodes the arguments, calls the function, and encodes what
came back. `Answer` runs on the check's side: it is what a check function receives and calls.
"""

from __future__ import annotations

import ast
import linecache
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from irlbook.errors import CodecError, InvalidExerciseError
from irlbook.exercises import codec
from irlbook.exercises.model import CheckFailed

_HERE = str(Path(__file__).resolve().parent)
_LIBRARIES = tuple({sys.prefix, sys.base_prefix, str(Path(_HERE).parent)})
_MAX_TEXT = 300


@dataclass(frozen=True)
class Piece:
    """Code to run: these statements (by index) of this cell's source."""

    cell: int
    source: str
    indices: tuple[int, ...]


class StudentError(CheckFailed):
    """The student's function raised. `names` holds the exception's class and its bases."""

    def __init__(self, property: str, hint: str, *, detail: str = "", names: tuple[str, ...] = ()):
        super().__init__(property, hint, detail=detail)
        self.names = names


def _clip(text: str) -> str:
    return text if len(text) <= _MAX_TEXT else text[: _MAX_TEXT - 1] + "…"


def _place(error: BaseException) -> tuple[str, str]:
    """Where in the student's own code: ("cell 4, line 2", "the line")."""
    found = ("", "")
    trace = error.__traceback__
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename
        own = name.startswith("cell ") or not (
            name.startswith(_LIBRARIES) or name.startswith("<frozen")
        )
        if own:
            label = f"{name}, line" if name.startswith("cell ") else "line"
            line = linecache.getline(name, trace.tb_lineno).strip()
            found = (f"{label} {trace.tb_lineno}", _clip(line))
        trace = trace.tb_next
    return found


def describe(error: BaseException) -> dict[str, Any]:
    """An exception as data: its class, bases, message and place in the student's code."""
    try:
        message = _clip(str(error))
    except BaseException:  # a hostile __str__
        message = ""
    where, line = _place(error)
    names = [cls.__name__ for cls in type(error).__mro__ if cls is not object]
    return {"type": names[0], "names": names, "message": message, "where": where, "line": line}


def serve(function: Callable[..., Any], request: bytes) -> bytes:
    """Call the function with encoded arguments; the reply is encoded too.

    The reply is a dict: {"value": ...} or {"error": ...} or {"unusable": type}, and {"mutated": n}
    when argument n was changed in place. KeyboardInterrupt passes.
    """
    args, kwargs = codec.loads(request)
    named = {**{f"number {i + 1}": a for i, a in enumerate(args)}, **kwargs}
    before = {name: codec.dumps(value, rng_state=False) for name, value in named.items()}
    try:
        value = function(*args, **kwargs)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return codec.dumps({"error": describe(error)})
    for name, value_before in before.items():
        try:
            same = codec.dumps(named[name], rng_state=False) == value_before
        except Exception:
            same = False
        if not same:
            return codec.dumps({"mutated": name})
    try:
        return codec.dumps({"value": value})
    except CodecError as error:
        return codec.dumps({"unusable": _clip(str(error))})


class Answer:
    """The student's function as a check sees it: call it with data, get data back.

    Args:
        name: the function's name, for messages.
        send: carries an encoded request to `serve` and returns its reply.
    """

    def __init__(self, name: str, send: Callable[[bytes], bytes]) -> None:
        self.name = name
        self._send = send

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        try:
            request = codec.dumps([list(args), kwargs])
        except CodecError as error:  # the check's fault, not the student's
            raise InvalidExerciseError(f"the check of `{self.name}` passes {error}") from None
        try:
            reply = codec.loads(self._send(request))
        except CodecError as error:
            reply = {"unusable": str(error)}
        reply = reply if isinstance(reply, dict) else {"unusable": "a broken reply"}
        if "value" in reply:
            return reply["value"]
        if "mutated" in reply:
            raise CheckFailed(
                "the arguments are left as they were",
                "your function changes an argument in place; work on a copy (`x = x.copy()`), "
                "for the caller still needs the original",
                detail=f"argument {_clip(str(reply['mutated']))} was changed",
            )
        if "unusable" in reply:
            raise CheckFailed(
                "it returns numbers, arrays or plain containers of them",
                "check what your `return` gives back",
                detail=f"it returned {_clip(str(reply['unusable']))}",
            )
        raise student_error(reply.get("error"), self.name)


def student_error(report: Any, name: str) -> StudentError:
    """The failure that reports the student's own exception, type, message and line."""
    report = report if isinstance(report, dict) else {}
    text = {k: _clip(str(report.get(k) or "")) for k in ("type", "message", "where", "line")}
    names = report.get("names")
    names = tuple(str(n) for n in names[:20]) if isinstance(names, list) else ()
    if text["type"] == "NotImplementedError":
        return StudentError(
            "there is an answer",
            f"write the body of `{name}` and remove the line `raise NotImplementedError`",
            names=names,
        )
    detail = f"your code raised {text['type'] or 'an exception'}"
    detail += f": {text['message']}" if text["message"] else ""
    detail += f" ({text['where']}" if text["where"] else ""
    detail += f": `{text['line']}`" if text["where"] and text["line"] else ""
    detail += ")" if text["where"] else ""
    hint = {
        "NameError": "define or import the name in a cell of this notebook; the grader keeps only "
        "imports, functions, classes and simple constants, not the results of other cells",
        "RecursionError": "the function calls itself without end",
        "MemoryError": "your code asks for far more memory than the task needs",
        "SystemExit": "do not call exit() in an answer: return the result",
    }.get(text["type"], "run the line that failed on a small example and look at its inputs")
    return StudentError("it runs without an error", hint, detail=detail, names=names)


def local_answer(function: Callable[..., Any], name: str | None = None) -> Answer:
    """An `Answer` that calls a function of this process (the student's notebook)."""
    name = name or getattr(function, "__name__", "your function")
    return Answer(name, lambda request: serve(function, request))


def load_function(pieces: Iterable[Piece], name: str, flags: int = 0) -> Callable[..., Any]:
    """Run the pieces in a fresh namespace and return the function. This executes the code."""
    namespace: dict[str, Any] = {"__name__": "answers"}
    for piece in pieces:
        filename = f"cell {piece.cell}"
        lines = piece.source.splitlines(keepends=True)
        linecache.cache[filename] = (len(piece.source), None, lines, filename)
        body = ast.parse(piece.source).body
        for index in piece.indices:
            tree = ast.Module(body=[body[index]], type_ignores=[])
            exec(compile(tree, filename, "exec", flags=flags, dont_inherit=True), namespace)
    return namespace[name]
