"""Self-play on a matrix game: fictitious play, play against the last opponent, and the solution.

Two players with opposite interests choose a row and a column; the row player receives the entry.
A pair of mixed strategies is a solution if neither gains by changing alone. The sum of what each
gains by changing alone is the *duality gap*; it is 0 at a solution and nowhere else.

Sources: Brown 1951; Robinson 1951 (fictitious play converges); von Neumann 1928.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.optimize import linprog

from irlbook.errors import (
    InvalidHyperparameterError,
    InvalidPolicyError,
    NotConvergedError,
    NotFiniteError,
    ShapeError,
)

__all__ = ["MatrixPlay", "duality_gap", "play_matrix_game", "solve_matrix_game"]


@dataclass(frozen=True)
class MatrixPlay:
    """How a pair of players went on.

    Attributes:
        rows, columns: (T,) what each played in each round.
        gaps: (T,) the duality gap of their average strategies after each round.
    """

    rows: np.ndarray
    columns: np.ndarray
    gaps: np.ndarray


def duality_gap(payoff: np.ndarray, row: np.ndarray, column: np.ndarray) -> float:
    """max_i (M y)_i - min_j (x' M)_j >= 0, eq 21.13: the sum of what each gains by changing alone.

    Args:
        payoff: (m, n) to the row player. row: (m,) x. column: (n,) y, distributions.

    Raises:
        InvalidPolicyError: a strategy that is no distribution.
    """
    payoff = _payoff(payoff)
    x, y = _strategy(row, payoff.shape[0]), _strategy(column, payoff.shape[1])
    return float((payoff @ y).max() - (x @ payoff).min())


def solve_matrix_game(payoff: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """(x, y, value) of a solution, by two linear programs.

    max v such that x' M >= v and x is a distribution; and the same for the other player.

    Raises:
        NotConvergedError: the solver of linear programs failed.
    """
    payoff = _payoff(payoff)
    x, value = _safest(payoff)
    y, _ = _safest(-payoff.T)
    return x, y, value


def play_matrix_game(
    payoff: np.ndarray, rounds: int, opponent: Literal["average", "last"] = "average"
) -> MatrixPlay:
    """Both players answer as well as they can to what the other has done; ties to the first.

    Args:
        opponent: "average": the best answer to all past moves of the other, alike (fictitious
            play). "last": the best answer to the last move only.

    Raises:
        InvalidHyperparameterError: no round, or another opponent.
    """
    payoff = _payoff(payoff)
    if rounds < 1 or opponent not in ("average", "last"):
        raise InvalidHyperparameterError(
            f"rounds={rounds} must be at least 1, and opponent={opponent!r} 'average' or 'last'."
        )
    m, n = payoff.shape
    counts_x, counts_y = np.zeros(m), np.zeros(n)
    rows, columns, gaps = [], [], []
    i = j = 0
    for _ in range(rounds):
        rows.append(i)
        columns.append(j)
        counts_x[i] += 1
        counts_y[j] += 1
        against_column, against_row = payoff @ counts_y, counts_x @ payoff
        gaps.append((against_column.max() - against_row.min()) / len(rows))
        if opponent == "average":
            i, j = int(against_column.argmax()), int(against_row.argmin())
        else:
            i, j = int(payoff[:, j].argmax()), int(payoff[i].argmin())
    return MatrixPlay(np.array(rows), np.array(columns), np.array(gaps))


def _safest(payoff: np.ndarray) -> tuple[np.ndarray, float]:
    """The row player's strategy that promises most, and what it promises."""
    m, n = payoff.shape
    found = linprog(
        np.append(np.zeros(m), -1.0),
        A_ub=np.hstack([-payoff.T, np.ones((n, 1))]),
        b_ub=np.zeros(n),
        A_eq=np.append(np.ones(m), 0.0)[None],
        b_eq=[1.0],
        bounds=[(0, None)] * m + [(None, None)],
    )
    if not found.success:
        raise NotConvergedError(f"the linear program was not solved: {found.message}")
    return found.x[:m] / found.x[:m].sum(), float(found.x[m])


def _payoff(payoff: np.ndarray) -> np.ndarray:
    payoff = np.asarray(payoff, dtype=float)
    if payoff.ndim != 2 or payoff.size == 0:
        raise ShapeError(f"payoff has shape {payoff.shape}; expected (rows, columns).")
    if not np.isfinite(payoff).all():
        raise NotFiniteError("the payoff holds NaN or infinity.")
    return payoff


def _strategy(p: np.ndarray, n: int) -> np.ndarray:
    p = np.asarray(p, dtype=float)
    if p.shape != (n,) or p.min() < -1e-9 or abs(p.sum() - 1.0) > 1e-6:
        raise InvalidPolicyError(f"a strategy of {n} moves must sum to 1; got {p!r}.")
    return p
