"""Calling the student's function: the same way in the notebook and across a process border.

`serve` runs on the student's side: it decodes the arguments, calls the function, and encodes what
came back. `Answer` runs on the check's side: it is what a check function receives and calls.
"""

from __future__ import annotations

import ast
import linecache
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from irlbook.errors import CheckFailed, CodecError, InvalidExerciseError
from irlbook.exercises import codec
from irlbook.exercises.figures import none_left_open

__all__ = [
    "Answer",
    "Piece",
    "StudentError",
    "borrowed",
    "describe",
    "load_function",
    "local_answer",
    "serve",
    "student_error",
]

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


def _place(error: BaseException) -> tuple[str, str, str]:
    """Where in the student's own code: ("cell 4, line 2", "the line", "the function")."""
    found = ("", "", "")
    trace = error.__traceback__
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename
        own = name.startswith("cell ") or not (
            name.startswith(_LIBRARIES) or name.startswith("<frozen")
        )
        if own:
            label = f"{name}, line" if name.startswith("cell ") else "line"
            line = linecache.getline(name, trace.tb_lineno).strip()
            found = (f"{label} {trace.tb_lineno}", _clip(line), trace.tb_frame.f_code.co_name)
        trace = trace.tb_next
    return found


def describe(error: BaseException) -> dict[str, Any]:
    """An exception as data: its class, bases, message and place in the student's code."""
    try:
        message = _clip(str(error))
    except BaseException:  # a hostile __str__
        message = ""
    where, line, function = _place(error)
    names = [cls.__name__ for cls in type(error).__mro__ if cls is not object]
    place = {"where": where, "line": line, "function": function}
    return {"type": names[0], "names": names, "message": message, **place}


def borrowed(function: Callable[..., Any], modules: Sequence[str]) -> str:
    """What a function uses from these modules, directly or through functions of its own notebook.

    Returns:
        the name of the first such thing, "" where there is none.
    """
    home = getattr(function, "__globals__", {})
    waiting, seen = [getattr(function, "__code__", None)], set[Any]()
    while waiting:
        code = waiting.pop()
        if code is None or code in seen:
            continue
        seen.add(code)
        waiting += [part for part in code.co_consts if isinstance(part, type(code))]
        for name in code.co_names:
            value = home.get(name)
            source = str(getattr(value, "__module__", None) or getattr(value, "__name__", ""))
            for module in modules:
                if f"{source}.".startswith(f"{module}.") or f"{name}.".startswith(f"{module}."):
                    return f"`{name}` of {source or name}"
                rest = module.removeprefix(f"{source}.")  # irlbook.rl, where irlbook is at hand
                if source and rest != module and set(rest.split(".")) <= set(code.co_names):
                    return module
            if getattr(value, "__globals__", None) is home:
                waiting.append(getattr(value, "__code__", None))
            elif isinstance(value, type) and source == home.get("__name__"):
                waiting += [getattr(part, "__code__", None) for part in vars(value).values()]
    return ""


def serve(function: Callable[..., Any], request: bytes, without: Sequence[str] = ()) -> bytes:
    """Call the function with encoded arguments; the reply is encoded too.

    The reply is a dict: {"value": ...} or {"error": ...} or {"unusable": type}, {"mutated": n}
    when argument n was changed in place, and {"borrowed": name} when the function uses one of the
    modules `without`. KeyboardInterrupt passes.
    """
    if without and (found := borrowed(function, without)):
        return codec.dumps({"borrowed": found})
    with none_left_open():
        return _reply(function, request)


def _reply(function: Callable[..., Any], request: bytes) -> bytes:
    args, kwargs = codec.loads(request)
    named = {**{f"number {i + 1}": a for i, a in enumerate(args)}, **kwargs}
    before = {name: codec.dumps(value, rng_state=False) for name, value in named.items()}
    try:
        value = function(*args, **kwargs)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        report = describe(error)
        if report["function"] == getattr(function, "__name__", ""):
            report["function"] = ""  # it bears the name that the task gave it, or one of its own
        return codec.dumps({"error": report})
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
        if "borrowed" in reply:
            raise CheckFailed(
                "it is built from your own functions",
                "the lab asks you to write this part yourself, with NumPy and torch",
                detail=f"it uses {_clip(str(reply['borrowed']))}",
            )
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
    keys = ("type", "message", "where", "line", "function")
    text = {key: _clip(str(report.get(key) or "")) for key in keys}
    names = report.get("names")
    names = tuple(str(n) for n in names[:20]) if isinstance(names, list) else ()
    if text["type"] == "NotImplementedError":
        name = text["function"] if text["function"].isidentifier() else name  # one that it calls
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


def local_answer(
    function: Callable[..., Any], name: str | None = None, *, without: Sequence[str] = ()
) -> Answer:
    """An `Answer` that calls a function of this process (the student's notebook)."""
    name = name or str(getattr(function, "__name__", "your function"))
    return Answer(name, lambda request: serve(function, request, without))


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
