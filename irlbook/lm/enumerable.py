"""A language model small enough to write down every response.

With a few tokens and a short limit the responses form a tree of prefixes. That tree *is* a
:class:`~irlbook.mdp.TabularMDP`: a state is a prefix, an action is the next token, moves are
certain. So the planning solvers of floor 1 give exactly what post-training only approaches: the
KL-regularised optimum, its partition function, and the value of every prefix.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import sparse

from irlbook.errors import InvalidPolicyError, ShapeError
from irlbook.mdp import TabularMDP

MAX_STATES = 2_000_000


@dataclass(frozen=True)
class EnumerableLM:
    """All responses over `tokens` up to `max_length`, for one prompt.

    A response ends with the end token, or when it is `max_length` tokens long. States are prefixes
    in breadth-first order: state 0 is the empty prefix. Ended prefixes are terminal.

    Attributes:
        tokens: the vocabulary; the last one ends a response.
        max_length: L >= 1.
        prefixes: (S, L) token numbers, padded with -1.
        lengths: (S,).
        children: (S, A) successor of each prefix; -1 for ended ones.
        policy: (S, A) next-token probabilities pi_ref(a | prefix); uniform on ended prefixes.
    """

    tokens: tuple[str, ...]
    max_length: int
    prefixes: np.ndarray
    lengths: np.ndarray
    children: np.ndarray
    policy: np.ndarray

    @classmethod
    def create(
        cls,
        tokens: Sequence[str],
        max_length: int,
        next_token_probabilities: Callable[[np.ndarray], np.ndarray],
    ) -> EnumerableLM:
        """Enumerate the tree and ask the model for its next-token probabilities.

        Args:
            tokens: at least two; the last one is the end token.
            next_token_probabilities: called once a length with the live prefixes (n, length) of
                token numbers; returns (n, A) rows that sum to 1.

        Raises:
            ShapeError: fewer than two tokens, or a tree of more than two million prefixes.
            InvalidPolicyError: a row that is not a distribution.
        """
        n_tokens = len(tokens)
        if n_tokens < 2 or max_length < 1:
            raise ShapeError("an enumerable model needs two tokens or more and max_length >= 1.")
        n_live = [(n_tokens - 1) ** length for length in range(max_length)]
        total = 1 + n_tokens * sum(n_live)
        if total > MAX_STATES:
            raise ShapeError(
                f"{n_tokens} tokens and length {max_length} make {total:,} prefixes; the limit is "
                f"{MAX_STATES:,}. Use fewer tokens or shorter responses."
            )
        prefixes = np.full((total, max_length), -1)
        lengths = np.zeros(total, dtype=int)
        children = np.full((total, n_tokens), -1)
        policy = np.full((total, n_tokens), 1.0 / n_tokens)
        live, next_free = np.array([0]), 1
        for length in range(max_length):
            rows = np.asarray(next_token_probabilities(prefixes[live, :length]), dtype=float)
            if rows.shape != (len(live), n_tokens):
                raise InvalidPolicyError(
                    f"next_token_probabilities gave shape {rows.shape} for {len(live)} prefixes; "
                    f"expected {(len(live), n_tokens)}."
                )
            if not (rows >= 0).all() or not np.allclose(rows.sum(axis=1), 1.0, atol=1e-5):
                raise InvalidPolicyError("next-token probabilities must sum to 1 in each row.")
            policy[live] = rows / rows.sum(axis=1, keepdims=True)
            new = next_free + np.arange(len(live) * n_tokens)
            next_free += len(new)
            children[live] = new.reshape(-1, n_tokens)
            prefixes[new] = np.repeat(prefixes[live], n_tokens, axis=0)
            prefixes[new, length] = np.tile(np.arange(n_tokens), len(live))
            lengths[new] = length + 1
            live = new[prefixes[new, length] != n_tokens - 1]
        return cls(tuple(tokens), max_length, prefixes, lengths, children, policy)

    @property
    def n_states(self) -> int:
        return len(self.lengths)

    @cached_property
    def responses(self) -> np.ndarray:
        """(R,) states that are whole responses."""
        return np.flatnonzero(self.children[:, 0] < 0)

    def text(self, state: int) -> str:
        """The prefix as words, without the end token."""
        words = [self.tokens[k] for k in self.prefixes[state, : self.lengths[state]]]
        return " ".join(word for word in words if word != self.tokens[-1])

    def mdp(self, response_reward: np.ndarray) -> TabularMDP:
        """The token tree with r(x, y) paid on the token that completes y; discount 1.

        Args:
            response_reward: (R,) in the order of `responses`.
        """
        n_tokens = len(self.tokens)
        if np.shape(response_reward) != self.responses.shape:
            raise ShapeError(
                f"response_reward has shape {np.shape(response_reward)}; expected "
                f"{self.responses.shape}, one number for each of `responses`."
            )
        live = np.flatnonzero(self.children[:, 0] >= 0)
        rows = (live[:, None] * n_tokens + np.arange(n_tokens)).reshape(-1)
        columns = self.children[live].reshape(-1)
        moves = sparse.csr_array(
            (np.ones(len(rows)), (rows, columns)),
            shape=(self.n_states * n_tokens, self.n_states),
        )
        paid = np.zeros(self.n_states)
        paid[self.responses] = response_reward
        reward = np.zeros((self.n_states, n_tokens))
        reward[live] = paid[self.children[live]]
        return TabularMDP.create(
            moves, reward, start=0, discount=1.0, terminal=self.children[:, 0] < 0
        )

    def sequence_log_probabilities(self, policy: np.ndarray | None = None) -> np.ndarray:
        """(R,) log pi(y | x) = sum_t log pi(y_t | y_<t) of every response; default pi_ref."""
        with np.errstate(divide="ignore"):
            steps = np.log(self.policy if policy is None else policy)
        log_reach = np.full(self.n_states, -np.inf)
        log_reach[0] = 0.0
        for length in range(self.max_length):
            parents = np.flatnonzero((self.lengths == length) & (self.children[:, 0] >= 0))
            log_reach[self.children[parents]] = log_reach[parents, None] + steps[parents]
        return log_reach[self.responses]
