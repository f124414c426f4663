"""Floor 0: the Markov decision process as arrays, and the trajectories that run through it.

A finite MDP is a handful of arrays. Transitions are one sparse matrix with a row for each
state-action pair, because almost every world in this book moves to a few states at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from numbers import Real
from typing import Any

import numpy as np
from scipy import sparse

from irlbook.errors import (
    InvalidHyperparameterError,
    InvalidMDPError,
    InvalidPolicyError,
    InvalidTrajectoryError,
    IrlbookError,
    MDPNotFiniteError,
    MDPNotStochasticError,
    MDPShapeError,
    ShapeError,
    TerminalRewardError,
    shown,
)
from irlbook.moves import ChosenMoves, split_moves
from irlbook.tables import FORM, read_start, read_table

__all__ = [
    "ROW_SUM_TOLERANCE",
    "TabularMDP",
    "Trajectories",
    "as_floats",
    "as_numbers",
    "as_start",
    "check_policy",
    "empty_rows",
    "feature_expectations",
    "sample_trajectories",
]

ROW_SUM_TOLERANCE = 1e-8


@dataclass(frozen=True)
class TabularMDP:
    """A finite Markov decision process. Build it with :meth:`create`, which checks everything.

    Attributes:
        transitions: (S*A, S) sparse; row ``s*A + a`` holds P(.|s, a). Rows of terminal states
            are empty: the episode is over, so their value is zero.
        reward: (S, A) expected reward r(s, a).
        start: (S,) distribution p_0 of the first state.
        discount: gamma in [0, 1].
        terminal: (S,) bool.
    """

    transitions: sparse.csr_array
    reward: np.ndarray
    start: np.ndarray
    discount: float
    terminal: np.ndarray

    @classmethod
    def create(
        cls,
        transitions: Any,
        reward: Any,
        *,
        start: Any = None,
        discount: float = 0.99,
        terminal: Any = None,
    ) -> TabularMDP:
        """Check the parts of an MDP and put them in standard form.

        Args:
            transitions: (S, A, S) dense, or (S*A, S) dense or sparse with row ``s*A + a``. A CSR
                matrix in canonical form is not copied: do not change its arrays afterwards.
            reward: (S,) collected in s before moving; (S, A); or (S, A, S) / sparse (S*A, S)
                on transitions, which is averaged over the next state.
            start: (S,) distribution, one state number, or None for uniform over the states
                that are not terminal.
            discount: gamma in [0, 1].
            terminal: (S,) bool or a list of state numbers. What `transitions` says of them is
                dropped: nothing happens after the end.

        Raises:
            InvalidMDPError: or one of its kinds; the message names the state and the mend.
        """
        discount = _as_discount(discount)
        matrix, n_states, n_actions = _as_transition_matrix(transitions)
        ended = _as_terminal(terminal, n_states)
        matrix = empty_rows(matrix, np.repeat(ended, n_actions))
        _check_rows(matrix, ended, n_actions)
        rewards = _as_expected_reward(reward, matrix, ended, n_actions)
        first = as_start(start, ended, n_states)
        for array in (rewards, first, ended, matrix.data, matrix.indices, matrix.indptr):
            array.flags.writeable = False
        return cls(matrix, rewards, first, discount, ended)

    @classmethod
    def from_gymnasium(cls, env: Any, *, discount: float = 0.99) -> TabularMDP:
        """Read the table ``env.unwrapped.P[s][a] -> [(p, s', r, terminated), ...]``.

        A state that is only ever entered with ``terminated=True`` becomes terminal, whatever the
        table says it does next (CliffWalking's goal moves on; FrozenLake's holes self-loop). If
        a state is entered both ways (Taxi), or episodes begin in it, the ending transitions lead
        to one extra terminal state, numbered S, so that states 0..S-1 keep their numbers.
        Duplicate successors are added up. Gymnasium's TimeLimit is not in the table and so not in
        the MDP.

        Raises:
            InvalidMDPError: or one of its kinds: the environment has no table, or one that is
                malformed (see `irlbook.tables.read_table`).
        """
        inner = getattr(env, "unwrapped", env)
        table = getattr(inner, "P", None)
        first = getattr(inner, "initial_state_distrib", None)
        if table is not None and first is None:
            raise InvalidMDPError(
                f"{shown(env)} has a table `P`, but no `initial_state_distrib`. Give it this "
                "attribute: for each state the probability that an episode begins there."
            )
        if table is None or first is None or isinstance(inner, type):
            raise InvalidMDPError(
                f"{shown(env)} has no table `P` with `initial_state_distrib`. Only Gymnasium's "
                "toy-text environments and irlbook's own have one: make one with gymnasium.make, "
                f"give yours both (P[s][a] lists {FORM}), or give arrays to TabularMDP.create."
            )
        n_states, n_actions, row, probability, successor, reward, ends = read_table(table)
        start = read_start(first, n_states)
        source = row // n_actions
        enters_to_end = np.zeros(n_states, dtype=bool)
        enters_to_end[successor[ends]] = True
        # A state is terminal unless an episode begins in it or a living state can also enter it
        # without ending. Taking it off the list makes it a living state itself, so repeat until
        # nothing changes.
        over = enters_to_end & ~(start > 0)
        while True:
            enters_alive = np.zeros(n_states, dtype=bool)
            enters_alive[successor[~ends & ~over[source]]] = True
            if not (over & enters_alive).any():
                break
            over = over & ~enters_alive
        silent = (np.bincount(row, minlength=n_states * n_actions) == 0) & ~over.repeat(n_actions)
        if silent.any():
            s, a = divmod(int(np.argmax(silent)), n_actions)
            raise InvalidMDPError(
                f"P[{s}][{a}] (state {s}, action {a}) lists no outcome, although the episode goes "
                "on there. List one, or let every move into the state end the episode."
            )
        both = enters_to_end & ~over
        size = n_states + int(both.any())
        successor = np.where(ends & both[successor], n_states, successor)
        expected = np.zeros((size, n_actions))
        np.add.at(expected.reshape(-1), row, probability * reward)
        terminal = np.zeros(size, dtype=bool)
        terminal[:n_states] = over
        terminal[n_states:] = True
        expected[terminal] = 0.0
        matrix = sparse.coo_array(
            (probability, (row, successor)), shape=(size * n_actions, size)
        ).tocsr()
        begin = np.zeros(size)
        begin[:n_states] = start
        return cls.create(matrix, expected, start=begin, discount=discount, terminal=terminal)

    @property
    def n_states(self) -> int:
        return self.reward.shape[0]

    @property
    def n_actions(self) -> int:
        return self.reward.shape[1]

    @cached_property
    def chosen_moves(self) -> ChosenMoves | None:
        """The transitions as moves that are chosen and luck, if they are (`irlbook.moves`)."""
        return split_moves(self.transitions, self.terminal, self.n_actions)

    @cached_property
    def _cumulative(self) -> np.ndarray:
        """(nnz + 1,) running sum over all stored probabilities, for sampling a successor."""
        return np.concatenate([[0.0], np.cumsum(self.transitions.data)])

    def dense(self) -> np.ndarray:
        """(S, A, S) transition probabilities as one dense array, for small worlds."""
        return self.transitions.toarray().reshape(self.n_states, self.n_actions, self.n_states)

    def with_reward(self, reward: Any) -> TabularMDP:
        """The same world with another reward, of any shape that :meth:`create` takes."""
        rewards = _as_expected_reward(reward, self.transitions, self.terminal, self.n_actions)
        rewards.flags.writeable = False
        return replace(self, reward=rewards)

    def with_discount(self, discount: float) -> TabularMDP:
        """The same world with another discount."""
        return replace(self, discount=_as_discount(discount))

    def permute(self, states: Any, actions: Any) -> TabularMDP:
        """Renumber: new state i is old state ``states[i]``, and likewise for actions."""
        states = _as_permutation("states", states, self.n_states)
        actions = _as_permutation("actions", actions, self.n_actions)
        rows = (states[:, None] * self.n_actions + actions[None, :]).reshape(-1)
        return TabularMDP.create(
            self.transitions[rows][:, states],
            self.reward[np.ix_(states, actions)],
            start=self.start[states],
            discount=self.discount,
            terminal=self.terminal[states],
        )

    def sample_next(
        self, states: np.ndarray, actions: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        """(n,) next states, one for each pair (states[i], actions[i]), none of them terminal."""
        rows = np.asarray(states) * self.n_actions + np.asarray(actions)
        begin, end = self.transitions.indptr[rows], self.transitions.indptr[rows + 1]
        low, high = self._cumulative[begin], self._cumulative[end]
        target = low + rng.random(len(rows)) * (high - low)
        position = np.searchsorted(self._cumulative, target, side="right") - 1
        return self.transitions.indices[np.clip(position, begin, end - 1)]


def as_floats(given: Any, name: str, error: type[IrlbookError] = ShapeError) -> np.ndarray:
    """`given` as a float64 array.

    Raises:
        ShapeError: (or `error`) rows of unlike length, or entries that are no real numbers.
    """
    try:
        array = np.asarray(given)
        if array.dtype.kind not in "biufO":
            raise TypeError(f"it holds {array.dtype}")
        return array.astype(np.float64, copy=False)
    except (TypeError, ValueError) as problem:
        raise error(
            f"{name} must be an array of real numbers with rows of one length; got "
            f"{type(given).__name__} ({str(problem).splitlines()[0]:.120})."
        ) from None


def _as_array(given: Any) -> np.ndarray:
    """`given` as an array; rows of unlike length make one of no kind of number."""
    try:
        return np.asarray(given)
    except ValueError:
        return np.array([None])


def _as_discount(discount: Any) -> float:
    """A discount in [0, 1]."""
    if isinstance(discount, np.ndarray) and discount.ndim == 0:
        discount = discount[()]
    if not isinstance(discount, Real):
        raise InvalidMDPError(f"discount must be one number in [0, 1]; got {shown(discount)}.")
    number = float(discount)
    if not 0.0 <= number <= 1.0:
        raise InvalidMDPError(f"discount must lie in [0, 1]; got {discount}.")
    return number


def _as_permutation(name: str, given: Any, size: int) -> np.ndarray:
    """(size,) every number from 0 to size - 1, each of them once."""
    order = _as_array(given)
    if order.dtype.kind not in "iu" or not np.array_equal(np.sort(order, axis=None), range(size)):
        raise InvalidMDPError(f"{name} must name each of 0..{size - 1} once; got {shown(given)}.")
    return order.reshape(-1)


def _as_transition_matrix(transitions: Any) -> tuple[sparse.csr_array, int, int]:
    """Return (S*A, S) CSR with sorted, summed entries, none of them zero, and S and A."""
    if sparse.issparse(transitions):
        if transitions.ndim != 2:
            raise MDPShapeError(f"sparse transitions must be (S*A, S); got {transitions.shape}.")
        if transitions.dtype.kind not in "biuf":
            raise MDPShapeError(f"transitions hold {transitions.dtype}, not real numbers.")
        matrix = sparse.csr_array(transitions, dtype=np.float64)
    else:
        dense = as_floats(transitions, "transitions", MDPShapeError)
        if dense.ndim == 3 and dense.shape[0] == dense.shape[2]:
            dense = dense.reshape(-1, dense.shape[2])
        if dense.ndim != 2:
            raise MDPShapeError(
                f"transitions must be (S, A, S) or (S*A, S); got shape {np.shape(transitions)}."
            )
        if np.isnan(dense).any():
            raise MDPNotFiniteError("transitions hold NaN; every entry must be a probability.")
        matrix = sparse.csr_array(dense)
    n_rows, n_states = matrix.shape
    if n_states == 0 or n_rows == 0 or n_rows % n_states:
        raise MDPShapeError(
            f"transitions have {n_rows} rows for {n_states} states; there must be S*A rows, "
            "one for each state-action pair (row s*A + a)."
        )
    if not matrix.has_canonical_format or not matrix.data.all():
        matrix = matrix.copy()  # the arrays may be the caller's
        matrix.sum_duplicates()
        matrix.eliminate_zeros()
    index = np.int32 if max(matrix.nnz, n_rows) < 2**31 else np.int64
    # A new matrix with its own views, so that making them read-only leaves the caller's alone.
    matrix = sparse.csr_array(
        (
            matrix.data.view(),
            matrix.indices.astype(index, copy=False).view(),
            matrix.indptr.astype(index, copy=False).view(),
        ),
        shape=matrix.shape,
    )
    return matrix, n_states, n_rows // n_states


def _as_terminal(terminal: Any, n_states: int) -> np.ndarray:
    """Return (S,) bool from a mask or a list of state numbers."""
    ended = np.zeros(n_states, dtype=bool)
    if terminal is None:
        return ended
    given = _as_array(sorted(terminal) if isinstance(terminal, set) else terminal)
    if given.size and given.dtype.kind not in "biu":
        raise InvalidMDPError(
            f"terminal must be a bool mask or a list of state numbers; got {shown(terminal)}."
        )
    if given.dtype == bool:
        if given.shape != (n_states,):
            raise MDPShapeError(f"terminal has shape {given.shape}; expected ({n_states},).")
        return given.copy()
    numbers = given.astype(int).reshape(-1)
    if numbers.size and not (0 <= numbers.min() and numbers.max() < n_states):
        raise InvalidMDPError(f"terminal names states outside 0..{n_states - 1}.")
    if len(np.unique(numbers)) < numbers.size:
        raise InvalidMDPError(
            "terminal names a state twice. List each state number once; a mask must be bool."
        )
    ended[numbers] = True
    return ended


def _check_rows(matrix: sparse.csr_array, ended: np.ndarray, n_actions: int) -> None:
    """Every row of a state that is not terminal must be a probability distribution."""
    if not np.isfinite(matrix.data).all():
        raise MDPNotFiniteError(
            "transitions hold NaN or infinity; every entry must be a probability."
        )
    if matrix.nnz and matrix.data.min() < 0:
        bad = int(np.argmax(matrix.data < 0))
        s, a = divmod(int(np.searchsorted(matrix.indptr, bad, side="right")) - 1, n_actions)
        raise MDPNotStochasticError(
            f"P(.|s={s}, a={a}) has a negative probability ({matrix.data[bad]:.3g})."
        )
    sums = matrix.sum(axis=1)
    wrong = (np.abs(sums - 1.0) > ROW_SUM_TOLERANCE) & ~np.repeat(ended, n_actions)
    if wrong.any():
        first = int(np.flatnonzero(wrong)[0])
        s, a = divmod(first, n_actions)
        raise MDPNotStochasticError(
            f"P(.|s={s}, a={a}) sums to {sums[first]:.6g}, not 1 ({int(wrong.sum())} such rows). "
            "Normalise the row, or list the state in `terminal` if the episode ends there."
        )


def empty_rows(matrix: sparse.csr_array, drop: np.ndarray) -> sparse.csr_array:
    """`matrix` without the entries of the rows in `drop` (bool, one a row)."""
    lengths = np.diff(matrix.indptr)
    if not lengths[drop].any():
        return matrix
    keep = ~np.repeat(drop, lengths)
    indptr = np.concatenate([[0], np.cumsum(np.where(drop, 0, lengths))])
    return sparse.csr_array(
        (matrix.data[keep], matrix.indices[keep], indptr.astype(matrix.indptr.dtype)),
        shape=matrix.shape,
    )


def _as_expected_reward(
    reward: Any, matrix: sparse.csr_array, ended: np.ndarray, n_actions: int
) -> np.ndarray:
    """Return (S, A) expected reward from any of the accepted shapes."""
    n_states = len(ended)
    on_transitions = False
    if sparse.issparse(reward):
        if reward.shape != matrix.shape:
            raise MDPShapeError(f"sparse reward has shape {reward.shape}; expected {matrix.shape}.")
        if not np.isfinite(reward.data).all():
            raise MDPNotFiniteError("reward holds NaN or infinity.")
        expected = np.asarray((matrix * sparse.csr_array(reward)).sum(axis=1))
        expected = expected.reshape(n_states, n_actions)
        on_transitions = True
    else:
        given = as_floats(reward, "reward", MDPShapeError)
        if not np.isfinite(given).all():
            raise MDPNotFiniteError(
                "reward holds NaN or infinity. To forbid an action give it weight 0 in `reference`."
            )
        if given.shape == (n_states,):
            expected = np.repeat(given[:, None], n_actions, axis=1)
        elif given.shape == (n_states, n_actions):
            expected = given.copy()
        elif given.shape == (n_states, n_actions, n_states):
            rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
            on_entries = given.reshape(-1, n_states)[rows, matrix.indices]
            expected = np.bincount(
                rows, weights=matrix.data * on_entries, minlength=matrix.shape[0]
            ).reshape(n_states, n_actions)
            on_transitions = True
        else:
            raise MDPShapeError(
                f"reward has shape {given.shape}; expected (S,), (S, A) or (S, A, S) with "
                f"S={n_states}, A={n_actions}."
            )
    if not on_transitions and np.any(expected[ended]):
        state = int(np.flatnonzero(np.any(expected != 0, axis=1) & ended)[0])
        raise TerminalRewardError(
            f"state {state} is terminal and has a reward, which is never collected. Put it on the "
            "transitions into that state (shape (S, A, S)), or let the state absorb without being "
            "terminal."
        )
    return np.ascontiguousarray(expected)


def as_start(start: Any, ended: np.ndarray, n_states: int) -> np.ndarray:
    """(S,) start distribution from one, from a state, or uniform over what has not `ended`.

    Raises:
        InvalidMDPError: or one of its kinds: another length, no distribution, no state.
    """
    if start is None:
        if ended.all():
            raise InvalidMDPError("every state is terminal; nothing can happen in this MDP.")
        return (~ended).astype(float) / (~ended).sum()
    if not isinstance(start, list | tuple) and np.ndim(start) == 0:
        if np.asarray(start).dtype.kind not in "iu":
            raise InvalidMDPError(
                f"start {shown(start)} is no state. Give a whole number, a distribution or None."
            )
        if not 0 <= int(start) < n_states:
            raise InvalidMDPError(f"start state {start} is outside 0..{n_states - 1}.")
        return np.eye(1, n_states, int(start))[0]
    first = as_floats(start, "start", MDPShapeError).copy()
    if first.shape != (n_states,):
        raise MDPShapeError(f"start has shape {first.shape}; expected ({n_states},).")
    if not np.isfinite(first).all():
        raise MDPNotFiniteError("start holds NaN or infinity.")
    if (first < 0).any() or abs(first.sum() - 1.0) > ROW_SUM_TOLERANCE:
        raise MDPNotStochasticError(f"start must be a distribution; it sums to {first.sum():.6g}.")
    return first


def check_policy(mdp: TabularMDP, policy: Any) -> np.ndarray:
    """Return `policy` as float (S, A) or (T, S, A) after checking that every row is a distribution.

    Raises:
        InvalidPolicyError: wrong shape, a negative entry, or a row that does not sum to 1.
    """
    try:
        pi = np.asarray(policy, dtype=np.float64)
    except (TypeError, ValueError):
        raise InvalidPolicyError(
            "a policy is an array of probabilities, (S, A) or (T, S, A); rows of unlike length, "
            "or entries that are no numbers, make none."
        ) from None
    if pi.shape[-2:] != (mdp.n_states, mdp.n_actions) or pi.ndim not in (2, 3):
        raise InvalidPolicyError(
            f"policy has shape {pi.shape}; expected (S, A) = {(mdp.n_states, mdp.n_actions)}, "
            "or (T, S, A) for one that changes with time."
        )
    if not (pi >= 0).all() or not (np.abs(pi.sum(axis=-1) - 1.0) <= 1e-6).all():
        raise InvalidPolicyError(
            "each row of a policy must be non-negative and sum to 1. "
            "From logits use exp(logits - logsumexp(logits))."
        )
    return pi


@dataclass(frozen=True)
class Trajectories:
    """N trajectories of any length, stored end to end.

    Trajectory i takes ``lengths[i]`` actions and visits ``lengths[i] + 1`` states; the last state
    is where it ended, and no action was taken there.

    Attributes:
        states: (sum(lengths) + N,) int.
        actions: (sum(lengths),) int.
        lengths: (N,) int.
    """

    states: np.ndarray
    actions: np.ndarray
    lengths: np.ndarray

    @classmethod
    def from_list(cls, pairs: Sequence[tuple[Any, Any]]) -> Trajectories:
        """Build from ``[(states, actions), ...]``, each with one state more than actions.

        Raises:
            InvalidTrajectoryError: no trajectory, one with a wrong number of states, or with
                entries that are not whole numbers.
        """
        if not isinstance(pairs, Iterable):
            raise InvalidTrajectoryError("trajectories are a list of pairs (states, actions).")
        pairs = list(pairs)
        if not pairs:
            raise InvalidTrajectoryError("no trajectories were given.")
        checked = []
        for i, pair in enumerate(pairs):
            try:
                states, actions = pair
            except (TypeError, ValueError):
                raise InvalidTrajectoryError(
                    f"trajectory {i} must be a pair (states, actions)."
                ) from None
            states = as_numbers(states, f"the states of trajectory {i}")
            actions = as_numbers(actions, f"the actions of trajectory {i}")
            if len(actions) == 0:
                raise InvalidTrajectoryError(f"trajectory {i} is empty: it takes no action.")
            if len(states) != len(actions) + 1:
                raise InvalidTrajectoryError(
                    f"trajectory {i} has {len(states)} states and {len(actions)} actions; there "
                    "must be one state more: the one in which it ended."
                )
            checked.append((states, actions))
        return cls(
            np.concatenate([states for states, _ in checked]),
            np.concatenate([actions for _, actions in checked]),
            np.array([len(actions) for _, actions in checked]),
        )

    def __post_init__(self) -> None:
        for name in ("states", "actions", "lengths"):
            object.__setattr__(self, name, as_numbers(getattr(self, name), name))
        total, count = int(self.lengths.sum()), len(self.lengths)
        fits = len(self.states) == total + count and len(self.actions) == total
        if not fits or (self.lengths < 0).any():
            raise InvalidTrajectoryError(
                f"lengths add up to {total} over {count} trajectories, but there are "
                f"{len(self.states)} states and {len(self.actions)} actions; expected "
                f"{total + count} and {total}. Trajectories.from_list builds them from pairs."
            )

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        ends = np.cumsum(self.lengths)
        for i, (end, length) in enumerate(zip(ends, self.lengths, strict=True)):
            yield self.states[end - length + i : end + i + 1], self.actions[end - length : end]

    @cached_property
    def steps(self) -> np.ndarray:
        """(sum(lengths),) time t of every action within its trajectory."""
        begins = np.cumsum(self.lengths) - self.lengths
        return np.arange(len(self.actions)) - np.repeat(begins, self.lengths)

    @cached_property
    def acting_states(self) -> np.ndarray:
        """(sum(lengths),) the state in which every action was taken."""
        keep = np.ones(len(self.states), dtype=bool)
        keep[np.cumsum(self.lengths + 1) - 1] = False
        return self.states[keep]

    @cached_property
    def first_states(self) -> np.ndarray:
        """(N,) where each one began."""
        return self.states[np.cumsum(self.lengths + 1) - self.lengths - 1]

    @cached_property
    def last_states(self) -> np.ndarray:
        """(N,) where each one ended, without an action there."""
        return self.states[np.cumsum(self.lengths + 1) - 1]

    def counts(self, n_states: int, n_actions: int, discount: float = 1.0) -> np.ndarray:
        """(S, A) mean discounted visits a trajectory: the empirical occupancy measure.

        Raises:
            InvalidTrajectoryError: a state or an action outside the given numbers.
        """
        self.check_numbers(n_states, n_actions)
        flat = np.bincount(
            self.acting_states * n_actions + self.actions,
            weights=discount**self.steps,
            minlength=n_states * n_actions,
        )
        return flat.reshape(n_states, n_actions) / len(self)

    def feature_expectations(
        self, features: Any, n_actions: int, discount: float = 1.0
    ) -> np.ndarray:
        """(K,) empirical feature expectations. `features` is (S, K) or (S, A, K)."""
        phi = features if sparse.issparse(features) else as_floats(features, "features")
        n_states = phi.shape[0] if phi.ndim else 0
        return feature_expectations(self.counts(n_states, n_actions, discount), phi)

    def validate(self, mdp: TabularMDP) -> Trajectories:
        """Return self after checking every state, action and move against `mdp`.

        Raises:
            InvalidTrajectoryError: names the trajectory, the step and the impossible move; or the
                trajectory that takes no action.
        """
        empty = np.flatnonzero(self.lengths < 1)
        if empty.size:
            raise InvalidTrajectoryError(f"trajectory {empty[0]} is empty: it takes no action.")
        self.check_numbers(mdp.n_states, mdp.n_actions)
        for i, (states, actions) in enumerate(self):
            rows = states[:-1] * mdp.n_actions + actions
            likely = np.asarray(mdp.transitions[rows, states[1:]]).reshape(-1)
            if not (likely > 0).all():
                t = int(np.flatnonzero(likely <= 0)[0])
                raise InvalidTrajectoryError(
                    f"trajectory {i}, step {t}: state {states[t]}, action {actions[t]} cannot lead "
                    f"to state {states[t + 1]} in this MDP."
                )
        return self

    def check_numbers(self, n_states: int, n_actions: int) -> None:
        """Refuse states outside 0..n_states-1 and actions outside 0..n_actions-1.

        Raises:
            InvalidTrajectoryError: names the trajectory and the step.
        """
        for name, numbers, size in (
            ("state", self.states, n_states),
            ("action", self.actions, n_actions),
        ):
            wrong = np.flatnonzero((numbers < 0) | (numbers >= size))
            if wrong.size:
                length = self.lengths + (name == "state")
                ends = np.cumsum(length)
                i = int(np.searchsorted(ends, wrong[0], side="right"))
                raise InvalidTrajectoryError(
                    f"trajectory {i}, step {wrong[0] - ends[i] + length[i]}: {name} "
                    f"{numbers[wrong[0]]} is outside 0..{size - 1}."
                )


def as_numbers(given: Any, name: str) -> np.ndarray:
    """`given` as (n,) int.

    Raises:
        InvalidTrajectoryError: not flat, or not whole.
    """
    try:
        array = np.asarray(given)
    except ValueError:  # rows of unlike length
        array = np.empty((0, 0))
    whole = array.dtype.kind in "iu" or (
        array.dtype.kind == "f" and (np.isfinite(array) & (array == np.floor(array))).all()
    )
    if array.ndim != 1 or not whole:
        raise InvalidTrajectoryError(
            f"{name} must be a flat list of whole numbers; got {shown(given)}."
        )
    return array.astype(np.intp, copy=False)


def feature_expectations(occupancy: np.ndarray, features: Any) -> np.ndarray:
    """(K,) mu = sum_{s,a} rho(s,a) phi.

    Args:
        occupancy: (S, A). features: (S, K) on states or (S, A, K) on state-action pairs; sparse
            ones are (S, K) or (S*A, K).

    Raises:
        ShapeError: the shapes do not fit.
    """
    phi = features if sparse.issparse(features) else as_floats(features, "features")
    if sparse.issparse(phi) and phi.shape[0] == occupancy.size != occupancy.shape[0]:
        return phi.T @ occupancy.reshape(-1)
    if phi.ndim not in (2, 3) or phi.shape[:-1] != occupancy.shape[: phi.ndim - 1]:
        raise ShapeError(
            f"features have shape {phi.shape}; expected (S, K) or (S, A, K) with "
            f"(S, A) = {occupancy.shape}."
        )
    if phi.ndim == 2:
        return phi.T @ occupancy.sum(axis=1)
    return np.tensordot(occupancy, phi, axes=([0, 1], [0, 1]))


def sample_trajectories(
    mdp: TabularMDP,
    policy: Any,
    n: int,
    horizon: int,
    rng: np.random.Generator,
) -> Trajectories:
    """Run `policy` n times for at most `horizon` steps; a run stops in a terminal state.

    Args:
        policy: (S, A), or (T, S, A) with T >= horizon for one that changes with time.

    Returns:
        N trajectories, none of them empty.

    Raises:
        InvalidTrajectoryError: the start distribution puts weight on a terminal state.
        InvalidHyperparameterError: n or horizon below 1.
    """
    if n < 1 or horizon < 1:
        raise InvalidHyperparameterError(f"n and horizon must be 1 or more; got {n}, {horizon}.")
    pi = check_policy(mdp, policy)
    if np.any(mdp.start[mdp.terminal] > 0):
        raise InvalidTrajectoryError("the start distribution puts weight on a terminal state.")
    if pi.ndim == 3 and len(pi) < horizon:
        raise InvalidPolicyError(f"policy has {len(pi)} time steps; horizon {horizon} needs more.")
    cumulative = np.cumsum(pi, axis=-1)
    states = np.full((n, horizon + 1), -1)
    actions = np.full((n, horizon), -1)
    states[:, 0] = rng.choice(mdp.n_states, size=n, p=mdp.start)
    running = np.arange(n)
    for t in range(horizon):
        here = states[running, t]
        table = cumulative[t] if pi.ndim == 3 else cumulative
        draw = rng.random(len(running))[:, None] * table[here, -1:]
        chosen = (table[here] <= draw).sum(axis=1)
        actions[running, t] = chosen
        states[running, t + 1] = mdp.sample_next(here, chosen, rng)
        running = running[~mdp.terminal[states[running, t + 1]]]
        if not running.size:
            break
    return Trajectories(states[states >= 0], actions[actions >= 0], (actions >= 0).sum(axis=1))
