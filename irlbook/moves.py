"""Floor 0: moves that are chosen, and luck that no choice changes.

In most worlds of this book an action either does what it says, or something happens that would have
happened under any other action as well: a grid with slip, every world without randomness, the tree
of a language model. Then

    P(s'|s,a) = chance 1[s' = target(s,a)] + luck(s'|s),

and what depends on the action is one number a state-action pair, not a row of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
from scipy import sparse

__all__ = ["ChosenMoves", "SAME", "adder", "split_moves"]

try:  # y += A x without the checks of A @ x, which cost more than a small product
    from scipy.sparse import _sparsetools
except ImportError:  # not a public name
    _sparsetools = None

SAME = 1e-14  # probabilities that differ by less are equal up to rounding


@dataclass(frozen=True)
class ChosenMoves:
    """The split of the transitions of one world.

    Attributes:
        chance: that the chosen move is carried out, in (0, 1]. target: (S, A) where it leads.
        luck: (S, S) what happens else, rows of sum 1 - chance; None where that never is.
    """

    chance: float
    target: np.ndarray
    luck: sparse.csr_array | None

    @cached_property
    def luck_back(self) -> sparse.csr_array | None:
        """(S, S) transposed luck."""
        return None if self.luck is None else self.luck.T.tocsr()

    @cached_property
    def _back_order(self) -> np.ndarray:
        """(S*A,) the targets by number: which entry of `ahead` stands where in its transpose."""
        return np.argsort(self.target.reshape(-1), kind="stable")

    @cached_property
    def _unweighted(self) -> tuple[sparse.csr_array, sparse.csr_array]:
        n_states, n_actions = self.target.shape
        target = self.target.reshape(-1)
        size, shape, order = target.size, (n_states, n_states), self._back_order
        begins = np.append(0, np.cumsum(np.bincount(target, minlength=n_states)))
        ahead = np.ones(size), target.astype(np.int32), np.arange(0, size + 1, n_actions)
        back = np.ones(size), (order // n_actions).astype(np.int32), begins
        return sparse.csr_array(ahead, shape=shape), sparse.csr_array(back, shape=shape)

    def matrices(self, g: np.ndarray | None) -> tuple[sparse.csr_array, sparse.csr_array]:
        """(S, S) sums over actions with weights g (S, A), None for 1: and the transpose.

        The entry of (s, target(s, a)) is g(s, a); entries of one place are not added up.
        """
        ahead, back = self._unweighted
        if g is None:
            return ahead, back
        flat = g.reshape(-1)
        return (
            sparse.csr_array((flat, ahead.indices, ahead.indptr), shape=ahead.shape),
            sparse.csr_array((flat[self._back_order], back.indices, back.indptr), shape=back.shape),
        )


def split_moves(
    transitions: sparse.csr_array, terminal: np.ndarray, n_actions: int
) -> ChosenMoves | None:
    """The split of (S*A, S) transitions, or None where an action has more than one effect."""
    n_states = len(terminal)
    rows = np.repeat(np.arange(transitions.shape[0]), np.diff(transitions.indptr))
    key = rows // n_actions * n_states + transitions.indices
    if not key.size:
        return None
    order = np.argsort(key, kind="stable")
    sorted_key = key[order]
    begins = np.flatnonzero(np.diff(sorted_key, prepend=-1))
    counts = np.diff(begins, append=key.size)
    # What all actions of a state have in common is luck; the rest is chosen.
    common = np.minimum.reduceat(transitions.data[order], begins)
    common = np.where(counts == n_actions, common, 0.0)
    group = np.empty(key.size, dtype=int)
    group[order] = np.repeat(np.arange(len(begins)), counts)
    rest = transitions.data - common[group]
    kept = rest > SAME
    if not kept.any():
        return None
    chosen = np.bincount(rows[kept], minlength=n_states * n_actions).reshape(n_states, n_actions)
    alike = (chosen == 0).all(axis=1) & ~terminal  # states in which every action does the same
    chance = float(np.median(rest[kept]))
    if ((chosen != 1).any(axis=1) & ~terminal & ~alike).any() or np.ptp(rest[kept]) > SAME:
        return None
    target = np.repeat(np.arange(n_states)[:, None], n_actions, axis=1)
    target.reshape(-1)[rows[kept]] = transitions.indices[kept]
    source, lucky = np.divmod(sorted_key[begins], n_states)
    if alike.any():  # there, call as much of the luck chosen as anywhere else
        by_chance = np.lexsort((common, source))
        last = by_chance[np.flatnonzero(np.diff(source[by_chance], append=n_states))]
        last = last[alike[source[last]]]
        if (common[last] < chance - SAME).any():
            return None
        target[source[last]] = lucky[last][:, None]
        common[last] -= chance
    is_luck = common > SAME
    luck = sparse.csr_array(
        (common[is_luck], (source[is_luck], lucky[is_luck])), shape=(n_states, n_states)
    )
    return ChosenMoves(chance, target, luck if luck.nnz else None)


def adder(matrix: sparse.csr_array, count: int | None = None) -> Callable[..., None]:
    """A function (x, out) that does out += matrix @ x in place.

    Args:
        count: None for x of shape (n,), K for x of shape (n, K); contiguous float64 both, and out.
    """
    if _sparsetools is None:
        return partial(_add, matrix)
    parts = matrix.indptr, matrix.indices, matrix.data
    if count is None:
        return partial(_sparsetools.csr_matvec, *matrix.shape, *parts)
    many = partial(_sparsetools.csr_matvecs, *matrix.shape, count, *parts)
    return lambda x, out: many(x.reshape(-1), out.reshape(-1))


def _add(matrix: sparse.csr_array, x: np.ndarray, out: np.ndarray) -> None:
    out += matrix @ x
