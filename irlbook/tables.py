"""Floor 0: Gymnasium's toy-text tables, read strictly.

``P[s][a]`` lists ``(probability, next state, reward, terminated)``. Whatever could be read in two
ways is refused, with the state and the action: a table that is silently read as another world
gives right answers to a wrong question.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any, NamedTuple

import numpy as np

from irlbook.errors import InvalidMDPError, MDPNotFiniteError, MDPNotStochasticError, shown

__all__ = ["FORM", "Outcomes", "START_TOLERANCE", "TABLE_TOLERANCE", "read_start", "read_table"]

TABLE_TOLERANCE = 1e-8  # of the sum of a row of probabilities
START_TOLERANCE = 1e-6  # of a start distribution, which may be float32
FORM = "(probability, next state, reward, terminated)"


class Outcomes(NamedTuple):
    """The rows of a table, end to end; those of probability 0 are left out.

    Attributes:
        n_states: S. n_actions: A, the same in every state.
        row: (n,) s*A + a. probability, successor, reward, ends: (n,).
    """

    n_states: int
    n_actions: int
    row: np.ndarray
    probability: np.ndarray
    successor: np.ndarray
    reward: np.ndarray
    ends: np.ndarray


def read_table(table: Any) -> Outcomes:
    """Read ``P[s][a] -> [(probability, next state, reward, terminated), ...]``.

    States and actions are numbered from 0: P is a list or a dict with whole keys, and so is each
    ``P[s]``. Every state has the same actions. A list of outcomes is empty, which only a terminal
    state may be, or its probabilities sum to 1.

    Raises:
        InvalidMDPError: or one of its kinds; the message names state and action, and the mend.
    """
    states = _numbered(table, "P", "state")
    if not states:
        raise InvalidMDPError("the table P is empty; it must list at least one state.")
    rows = [_numbered(choices, f"P[{s}]", "action") for s, choices in enumerate(states)]
    n_states, n_actions = len(rows), max(map(len, rows))
    if n_actions == 0:
        raise InvalidMDPError("the table P has no actions; every P[s] is empty.")
    for s, choices in enumerate(rows):
        if len(choices) != n_actions:
            richest = next(i for i, c in enumerate(rows) if len(c) == n_actions)
            raise InvalidMDPError(
                f"state {s} has no action {len(choices)}: it has {len(choices)} of the "
                f"{n_actions} actions that state {richest} has. Give every state the same actions; "
                "let one that is not allowed stay where it is, and forbid it with `reference`."
            )
    found = [
        (s * n_actions + a, *outcome)
        for s, choices in enumerate(rows)
        for a, listed in enumerate(choices)
        for outcome in _outcomes(listed, s, a, n_states)
    ]
    entries = np.array(found, dtype=float).reshape(-1, 5)
    return Outcomes(
        n_states,
        n_actions,
        entries[:, 0].astype(int),
        entries[:, 1],
        entries[:, 2].astype(int),
        entries[:, 3],
        entries[:, 4].astype(bool),
    )


def read_start(first: Any, n_states: int) -> np.ndarray:
    """(S,) start distribution of a table, normalised to rounding.

    Raises:
        InvalidMDPError: or one of its kinds: another length, or no distribution.
    """
    try:
        start = np.asarray(first, dtype=float)
    except (TypeError, ValueError):
        raise InvalidMDPError(
            "`initial_state_distrib` must be a list of probabilities, one a state."
        ) from None
    if start.shape != (n_states,):
        raise InvalidMDPError(
            f"`initial_state_distrib` has shape {start.shape} for {n_states} states in the table "
            f"P; expected ({n_states},)."
        )
    if not np.isfinite(start).all():
        state = int(np.argmin(np.isfinite(start)))
        raise MDPNotFiniteError(f"`initial_state_distrib` of state {state} is {start[state]}.")
    if (start < 0).any() or abs(start.sum() - 1.0) > START_TOLERANCE:
        raise MDPNotStochasticError(
            f"`initial_state_distrib` must hold probabilities; its smallest is {start.min():.6g} "
            f"and they sum to {start.sum():.6g}."
        )
    return start / start.sum()


def _numbered(given: Any, name: str, what: str) -> list[Any]:
    """The entries of a list, or of a dict with the keys 0 .. n-1, in order."""
    if isinstance(given, Mapping):
        for key in given:
            if not isinstance(key, Integral) or isinstance(key, bool | np.bool_):
                raise InvalidMDPError(
                    f"{name} has the key {shown(key)}; {what}s are whole numbers 0, 1, 2 ... "
                    f"Number the {what}s."
                )
        missing = next((i for i in range(len(given)) if i not in given), None)
        if missing is not None:
            raise InvalidMDPError(
                f"{name} has {len(given)} {what}s, numbered {min(given)} to {max(given)}, but no "
                f"{what} {missing}. Number the {what}s from 0, without gaps."
            )
        return [given[i] for i in range(len(given))]
    if isinstance(given, Sequence) and not isinstance(given, str | bytes):
        return list(given)
    raise InvalidMDPError(
        f"{name} is of type {type(given).__name__}; expected a dict or list of {what}s, with "
        f"P[s][a] a list of {FORM}. Give arrays to TabularMDP.create."
    )


def _outcomes(listed: Any, s: int, a: int, n_states: int) -> list[tuple[float, int, float, bool]]:
    """The outcomes of one action, checked, without those of probability 0."""
    here = f"P[{s}][{a}] (state {s}, action {a})"
    if not isinstance(listed, Sequence) or isinstance(listed, str | bytes):
        raise InvalidMDPError(
            f"{here} is of type {type(listed).__name__}; expected a list of {FORM}."
        )
    checked = [_outcome(entry, here, n_states) for entry in listed]
    total = sum(p for p, _, _, _ in checked)
    if checked and abs(total - 1.0) > TABLE_TOLERANCE:
        raise MDPNotStochasticError(
            f"{here}: its probabilities sum to {total:.6g}, not 1. Normalise them, or add the "
            "outcome that is missing."
        )
    return [entry for entry in checked if entry[0] > 0.0]


def _outcome(entry: Any, here: str, n_states: int) -> tuple[float, int, float, bool]:
    try:
        chance, successor, reward, ends = entry
    except (TypeError, ValueError):
        size = f" has {len(entry)} parts" if hasattr(entry, "__len__") else f" is {shown(entry)}"
        raise InvalidMDPError(f"{here}: an outcome{size}; expected the four of {FORM}.") from None
    p = _number(chance)
    if p is None or not np.isfinite(p) or p < 0:
        raise MDPNotStochasticError(f"{here}: {shown(chance)} is not a probability.")
    target = _number(successor)
    if target is None or not np.isfinite(target) or target != int(target):
        raise InvalidMDPError(
            f"{here}: next state {shown(successor)} is not a whole number. The parts are {FORM}."
        )
    if not 0 <= target < n_states:
        raise InvalidMDPError(
            f"{here}: next state {int(target)} is outside 0..{n_states - 1}. List every state in P."
        )
    paid = _number(reward)
    if paid is None or not np.isfinite(paid):
        raise MDPNotFiniteError(f"{here}: reward {shown(reward)} is not a finite number.")
    if not isinstance(ends, bool | np.bool_) and _number(ends) not in (0.0, 1.0):
        raise InvalidMDPError(f"{here}: terminated is {shown(ends)}; expected True or False.")
    return p, int(target), paid, bool(ends)


def _number(given: Any) -> float | None:
    """A real number as a float; None for anything else. True and False are no numbers here."""
    if isinstance(given, np.ndarray) and given.ndim == 0:
        given = given[()]
    if isinstance(given, Real) and not isinstance(given, bool | np.bool_):
        return float(given)
    return None
