"""What a check says: each helper states a property and fails with words, never with the answer.

Every helper takes `property` (what must hold, a clause such as "rows sum to one") and `hint`
(what to think about next). Results from the student come as they are: the helpers guard against
None, wrong types, wrong shapes, NaN and infinity before they compare.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, ParamSpec

import numpy as np

from irlbook.errors import CheckFailed
from irlbook.exercises.figures import Panel, Picture

__all__ = [
    "MAX_DENSE",
    "Note",
    "SINGLE",
    "STATEMENTS",
    "as_array",
    "expect",
    "expect_close",
    "expect_distribution",
    "expect_equal",
    "expect_legend",
    "expect_length",
    "expect_line",
    "expect_picture",
    "expect_points",
    "expect_raises",
    "expect_shape",
    "expect_type",
    "expect_vertical_line",
    "fail",
    "noted",
]

SINGLE = 100 * float(np.finfo(np.float32).eps)  # what sums in single precision are good for
MAX_DENSE = 2**24  # entries of a sparse matrix that a check writes out

_KINDS = {"b": "booleans", "U": "text", "S": "bytes", "c": "complex numbers", "O": "objects"}


# ------------------------------------------------------------------------------------ noting

STATEMENTS: set[str] = set()  # the helpers that state a property and give nothing back
_P = ParamSpec("_P")


@dataclass
class Note:
    """A property that a check stated: in words, and its first failure if it failed."""

    property: str
    failure: CheckFailed | None = None


_NOTES: ContextVar[dict[tuple[str, int], Note] | None] = ContextVar("notes", default=None)


@contextmanager
def noted() -> Iterator[dict[tuple[str, int], Note]]:
    """Within it a property that fails is noted, by the place that states it, and not raised."""
    notes: dict[tuple[str, int], Note] = {}
    token = _NOTES.set(notes)
    try:
        yield notes
    finally:
        _NOTES.reset(token)


def _statement(function: Callable[_P, None]) -> Callable[_P, None]:
    """A helper whose failure a check can go on from."""
    STATEMENTS.add(function.__name__)

    @functools.wraps(function)
    def stated(*args: _P.args, **kwargs: _P.kwargs) -> None:
        notes = _NOTES.get()
        if notes is None:
            function(*args, **kwargs)
            return
        caller = sys._getframe(1)
        place = (caller.f_code.co_filename, caller.f_lineno)
        note = notes.setdefault(place, Note(str(kwargs.get("property", ""))))
        token = _NOTES.set(None)  # what it calls itself states nothing of its own
        try:
            function(*args, **kwargs)
        except CheckFailed as failure:
            note.failure = note.failure or failure
        finally:
            _NOTES.reset(token)

    return stated


# ------------------------------------------------------------------------------------ stating


def fail(property: str, hint: str, detail: str = "") -> None:
    """Fail now."""
    raise CheckFailed(property, hint, detail=detail)


@_statement
def expect(condition: Any, *, property: str, hint: str, detail: str = "") -> None:
    """Fail unless the condition is true (an array: everywhere true)."""
    if not bool(np.all(condition)):
        raise CheckFailed(property, hint, detail=detail)


def _kind(value: Any) -> str:
    if value is None:
        return "None (is the `return` missing?)"
    shape = getattr(value, "shape", None)
    if shape is not None and len(shape):
        return f"an array of shape {tuple(shape)}"
    if shape is None and hasattr(value, "__len__") and not isinstance(value, str):
        return f"a {type(value).__name__} of {len(value)}"
    return f"a {type(value).__name__}"


def as_array(
    got: Any,
    shape: tuple[int, ...] | None = None,
    *,
    what: str = "the result",
    hint: str = "read the task again: what is returned, and of which shape?",
    finite: bool = True,
) -> np.ndarray:
    """The student's result as a float array (an integer one stays so), or a failure that says why.

    Args:
        got: a number, an array, a tensor, or lists of numbers.
        shape: the shape that it must have; None for any. -1 stands for any length.
        what: how messages call it: "the result", "the first result", "`values`" ...
        finite: whether NaN and infinity fail; NaN always does.
    """
    property = f"{what} is " + ("a number" if shape == () else "an array of numbers")
    if got is None or isinstance(got, (str, bytes, dict, set)):
        raise CheckFailed(property, hint, detail=f"{what} is {_kind(got)}")
    if hasattr(got, "toarray"):
        if shape is not None:
            _expect_shape(got, shape, what, hint)
        if np.prod(got.shape, dtype=float) > MAX_DENSE:
            raise CheckFailed(f"{what} is of a reasonable size", hint, detail=f"it is {_kind(got)}")
        got = got.toarray()
    try:
        array = np.asarray(_numbers(got))
    except Exception:
        array = None
    several = isinstance(got, tuple) and any(hasattr(p, "__len__") for p in got)
    # a tuple of rows is an array where one of that many axes is wanted, else several results
    if array is None or (several and (shape is None or len(shape) != array.ndim)):
        detail = f"{what} is {_kind(got)}" + (": several values" if several else "")
        raise CheckFailed(property, hint, detail=detail)
    if array.dtype.kind not in "iufb":
        kind = _KINDS.get(array.dtype.kind, str(array.dtype))
        raise CheckFailed(property, hint, detail=f"{what} holds {kind}")
    if shape is not None:
        _expect_shape(array, shape, what, hint)
    if array.dtype.kind == "f":
        bad = np.isnan(array) if not finite else ~np.isfinite(array)
        if bad.any():
            word = "finite numbers" if finite else "numbers, not NaN"
            raise CheckFailed(
                f"{what} holds only {word}",
                "look for a division by zero, a log of zero, or an exp that overflows",
                detail=f"{int(bad.sum())} of {array.size} entries are not",
            )
    return array


def _numbers(got: Any, depth: int = 0) -> Any:
    """Lists of numbers, arrays and tensors as NumPy takes them; text in a list is refused.

    NumPy would make room for the longest text in every place.
    """
    if hasattr(got, "detach"):  # a torch tensor
        got = got.detach().cpu()
        return (got.double() if got.dtype.is_floating_point else got).numpy()
    if isinstance(got, (list, tuple)) and depth < 32:
        return [_numbers(part, depth + 1) for part in got]
    text = isinstance(got, (str, bytes)) or getattr(got, "dtype", np.dtype("f8")).kind in "US"
    if depth and (text or isinstance(got, (dict, set, type(None)))):
        raise TypeError
    return got


def _expect_shape(array: Any, shape: tuple[int, ...], what: str, hint: str) -> None:
    same = array.ndim == len(shape) and all(
        w in (-1, g) for g, w in zip(array.shape, shape, strict=True)
    )
    if not same:
        raise CheckFailed(
            f"{what} has the shape {shape}" if shape else f"{what} is a single number",
            hint,
            detail=f"its shape is {array.shape}",
        )


def expect_shape(got: Any, shape: tuple[int, ...], *, what: str = "the result", hint: str) -> None:
    """Fail unless the result is an array of this shape (-1: any length)."""
    as_array(got, shape, what=what, hint=hint, finite=False)


@_statement
def expect_close(
    got: Any,
    want: Any,
    *,
    property: str,
    hint: str,
    rtol: float = 1e-6,
    atol: float = 1e-8,
    what: str = "the result",
    mistakes: Mapping[str, Any | Callable[[], Any]] | None = None,
) -> None:
    """Fail unless the result has the shape and the values of `want` (its infinities too).

    Args:
        mistakes: a known mistake, in words -> what it would return (a value, or a function that
            computes it). When the result equals one, the message says so: "it looks as if ...".
    """
    want = np.asarray(want.detach().cpu() if hasattr(want, "detach") else want)
    array = as_array(got, want.shape, what=what, finite=bool(np.isfinite(want).all()))
    if _is_single(got):  # a right answer in single precision is right
        size = np.abs(want[np.isfinite(want)]).max(initial=0.0) if want.dtype.kind in "fiu" else 0.0
        rtol, atol = max(rtol, SINGLE), max(atol, SINGLE * float(size))
    close = np.isclose(array, want, rtol=rtol, atol=atol)
    if close.all():
        return
    detail = f"{int((~close).sum())} of {close.size} entries differ" if want.ndim else ""
    for mistake, value in (mistakes or {}).items():
        try:
            wrong = np.asarray(value() if callable(value) else value, dtype=float)
            # a mistake that happens to give the right values here says nothing
            telling = not np.allclose(wrong, want, rtol=rtol, atol=atol)
            if telling and np.allclose(array, wrong, rtol=rtol, atol=atol, equal_nan=True):
                detail = f"it looks as if {mistake}"
                break
        except Exception:  # a diagnosis must never break a check
            continue
    raise CheckFailed(property, hint, detail=detail)


@_statement
def expect_equal(
    got: Any, want: Any, *, property: str, hint: str, what: str = "the result"
) -> None:
    """Fail unless the result equals `want` exactly: integers, booleans, text, lists of these."""
    if isinstance(want, (str, bytes, dict, set, type(None))):
        got = _python(got)
        same = type(got) is type(want) and got == want
    else:
        array = np.asarray(want)
        if array.dtype.kind in "US":
            got = _python(got, lists=True)
            same = isinstance(got, (str, list)) and got == array.tolist()
        else:
            same = bool(np.all(as_array(got, array.shape, what=what) == array))
    if not same:
        raise CheckFailed(property, hint)


def _is_single(got: Any) -> bool:
    """Whether a result was computed in single precision."""
    if isinstance(got, (list, tuple)):
        return any(map(_is_single, got))
    return str(getattr(got, "dtype", "")).removeprefix("torch.") == "float32"


def _python(got: Any, lists: bool = False) -> Any:
    """NumPy's and torch's single values as Python's; with `lists`, arrays and tuples as lists."""
    if lists and isinstance(got, (list, tuple)):
        return [_python(part, lists) for part in got]
    shape = getattr(got, "shape", None)
    if hasattr(got, "tolist") and (lists or shape == ()):
        return got.tolist()
    return got


def expect_distribution(
    got: Any,
    shape: tuple[int, ...] | None = None,
    *,
    what: str = "the result",
    hint: str = "divide by the sum over the last axis",
    atol: float = 1e-6,
) -> np.ndarray:
    """Fail unless the last axis holds probabilities: none negative, each row sums to one."""
    array = as_array(got, shape, what=what)
    expect(array >= -atol, property=f"{what} has no negative probability", hint=hint)
    sums = array.sum(axis=-1)
    expect(np.abs(sums - 1) <= atol, property=f"the probabilities of {what} sum to one", hint=hint)
    return array


def expect_type(
    got: Any, types: type | tuple[type, ...], *, what: str = "the result", hint: str
) -> Any:
    """Fail unless the result is of this type, and return it (NumPy's and torch's as Python's)."""
    if not isinstance(got, types):
        got = _python(got)
    if not isinstance(got, types):
        names = " or ".join(t.__name__ for t in (types if isinstance(types, tuple) else (types,)))
        raise CheckFailed(f"{what} is a {names}", hint, detail=f"it is {_kind(got)}")
    return got


def expect_length(got: Any, length: int, *, what: str = "the result", hint: str) -> Any:
    """Fail unless the result is a tuple, a list or an array of this many values, and return it."""
    if getattr(got, "shape", None) and hasattr(got, "__getitem__") and got.shape[0] == length:
        got = tuple(got[number] for number in range(length))
    if not isinstance(got, (tuple, list)) or len(got) != length:
        raise CheckFailed(f"{what} is {length} values", hint, detail=f"it is {_kind(got)}")
    return got


def expect_picture(got: Any, panels: int = 1, *, hint: str) -> Picture:
    """Fail unless the result is a figure of so many panels, each with its axes labelled."""
    if not isinstance(got, Picture):
        raise CheckFailed(
            "it returns a Matplotlib figure",
            "end with `return fig`, where `fig, ax = plt.subplots()`",
            detail=f"it returned {_kind(got)}",
        )
    if len(got.axes) != panels:
        number = f"{panels} panel" + "s" * (panels != 1)
        detail = f"it has {len(got.axes)}"
        raise CheckFailed(f"the figure has {number}", hint, detail=detail)
    for panel in got.axes:
        for axis, label in (("x", panel.xlabel), ("y", panel.ylabel)):
            if not label.strip():
                raise CheckFailed(
                    f"the {axis} axis says what it shows",
                    f"a reader who sees only the picture must know it: `ax.set_{axis}label(...)`",
                )
    return got


@_statement
def expect_line(
    panel: Panel, x: Any, y: Any, *, property: str, hint: str, rtol: float = 1e-6
) -> None:
    """Fail unless one line of the panel goes through just these points."""
    want = np.stack([np.asarray(x, dtype=float), np.asarray(y, dtype=float)])
    for line in panel.lines:
        got = np.stack([line.x, line.y])
        if got.shape == want.shape and np.allclose(got, want, rtol=rtol, equal_nan=True):
            return
    raise CheckFailed(property, hint, detail=f"none of its {len(panel.lines)} lines does")


@_statement
def expect_points(
    panel: Panel, x: Any, y: Any, *, property: str, hint: str, rtol: float = 1e-6
) -> None:
    """Fail unless just these points are drawn, by `scatter` or by `plot` with a marker."""
    want = np.stack([np.asarray(x, dtype=float), np.asarray(y, dtype=float)], axis=1)
    lines = [line for line in panel.lines if line.x.shape == want.shape[:1]]
    of_lines = [np.stack([line.x, line.y], axis=1) for line in lines]

    def same(points: np.ndarray) -> bool:
        return points.shape == want.shape and np.allclose(points, want, rtol=rtol)

    marked = [points for line, points in zip(lines, of_lines, strict=True) if line.marked]
    if any(same(points) for points in [*panel.points, *marked]):
        return
    bare = any(same(points) for points in of_lines)
    detail = "a line without markers goes through them: single points cannot be seen"
    raise CheckFailed(property, hint, detail=detail if bare else "")


@_statement
def expect_legend(panel: Panel, curves: Mapping[str, Any], *, property: str) -> None:
    """Fail unless the legend names the line of each of these y values, each by another name.

    Args:
        panel: the axes.
        curves: y values by a word, in small letters, that the name of their line must hold.
        property: what must hold.
    """
    named = {}
    for word, values in curves.items():
        y = np.asarray(values, dtype=float)
        labels = [
            line.label
            for line in panel.lines
            if line.y.shape == y.shape and np.allclose(line.y, y) and line.label in panel.legend
        ]
        if not any(labels):
            raise CheckFailed(property, "`label=...` for each line, then `ax.legend()`")
        named[word] = next(filter(None, labels))
    if len(set(named.values())) != len(named):
        raise CheckFailed(property, "one name for each line")
    for word, name in named.items():
        if word not in name.lower():
            raise CheckFailed(
                property, f'the line that should hold the word "{word}" is called "{name[:60]}"'
            )


@_statement
def expect_vertical_line(panel: Panel, x: float, *, property: str, hint: str) -> None:
    """Fail unless a vertical line stands at `x`."""
    at = [line.x for line in panel.lines if len(line.x) > 1 and np.ptp(line.x) == 0]
    if not any(np.allclose(place, x) for place in at):
        raise CheckFailed(property, hint)


def expect_raises(
    errors: type | str | tuple[type | str, ...],
    answer: Callable[..., Any],
    *args: Any,
    property: str,
    hint: str,
    **kwargs: Any,
) -> None:
    """Fail unless `answer(*args, **kwargs)` raises one of these errors (or a subclass of one)."""
    from irlbook.exercises.answers import StudentError

    errors = errors if isinstance(errors, tuple) else (errors,)
    names = [e if isinstance(e, str) else e.__name__ for e in errors]
    try:
        answer(*args, **kwargs)
    except StudentError as raised:
        if set(names) & set(raised.names) and "NotImplementedError" not in raised.names:
            return
        raise
    raise CheckFailed(property, hint, detail=f"no {' or '.join(names)} was raised")
