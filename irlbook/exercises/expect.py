"""What a check says: each helper states a property and fails with words, never with the answer.

Every helper takes `property` (what must hold, a clause such as "rows sum to one") and `hint`
(what to think about next). Results from the student come as they are: the helpers guard against
None, wrong types, wrong shapes, NaN and infinity before they compare.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from irlbook.errors import CheckFailed

_KINDS = {"b": "booleans", "U": "text", "S": "bytes", "c": "complex numbers", "O": "objects"}


def fail(property: str, hint: str, detail: str = "") -> None:
    """Fail now."""
    raise CheckFailed(property, hint, detail=detail)


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
    if hasattr(value, "__len__") and not isinstance(value, str):
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
    if hasattr(got, "detach"):  # a torch tensor
        got = got.detach().cpu()
        got = (got.double() if got.dtype.is_floating_point else got).numpy()
    if hasattr(got, "toarray"):
        got = got.toarray()
    property = f"{what} is " + ("a number" if shape == () else "an array of numbers")
    if got is None or isinstance(got, (str, bytes, dict, set)):
        raise CheckFailed(property, hint, detail=f"{what} is {_kind(got)}")
    if isinstance(got, tuple) and any(np.ndim(part) for part in got):
        raise CheckFailed(property, hint, detail=f"{what} is {_kind(got)}: several values")
    try:
        array = np.asarray(got)
    except Exception:
        raise CheckFailed(property, hint, detail=f"{what} is {_kind(got)}") from None
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


def _expect_shape(array: np.ndarray, shape: tuple[int, ...], what: str, hint: str) -> None:
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


def expect_equal(
    got: Any, want: Any, *, property: str, hint: str, what: str = "the result"
) -> None:
    """Fail unless the result equals `want` exactly: integers, booleans, text, lists of these."""
    if isinstance(want, (str, bytes, dict, set, type(None))):
        same = type(got) is type(want) and got == want
    else:
        array = np.asarray(want)
        if array.dtype.kind in "US":
            same = np.asarray(got).shape == array.shape and bool(np.all(np.asarray(got) == array))
        else:
            same = bool(np.all(as_array(got, array.shape, what=what) == array))
    if not same:
        raise CheckFailed(property, hint)


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


def expect_type(got: Any, types: type | tuple[type, ...], *, what: str = "the result", hint: str):
    """Fail unless the result is of this type, and return it."""
    if not isinstance(got, types):
        names = " or ".join(t.__name__ for t in (types if isinstance(types, tuple) else (types,)))
        raise CheckFailed(f"{what} is a {names}", hint, detail=f"it is {_kind(got)}")
    return got


def expect_length(got: Any, length: int, *, what: str = "the result", hint: str) -> Any:
    """Fail unless the result is a tuple or list of this many values, and return it."""
    if not isinstance(got, (tuple, list)) or len(got) != length:
        raise CheckFailed(f"{what} is {length} values", hint, detail=f"it is {_kind(got)}")
    return got


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
