"""A language model small enough to write down every response.

With a few tokens and a short limit the responses form a tree of prefixes. That tree *is* a
:class:`~irlbook.mdp.TabularMDP`: a state is a prefix, an action is the next token, moves are
certain. So the planning solvers of floor 1 give exactly what post-training only approaches: the
KL-regularised optimum, its partition function, the value of every prefix, the policy gradient.

A distribution over responses is an array (R,) of log-probabilities, in the order of
``EnumerableLM.responses``. :class:`irlbook.lm.token_table.TokenTable` is the same model in torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike
from scipy import sparse

from irlbook.errors import (
    InvalidHyperparameterError,
    InvalidPolicyError,
    NotStochasticError,
    ResponseError,
    ShapeError,
)
from irlbook.mdp import TabularMDP
from irlbook.planning import (
    evaluate_policy,
    occupancy_measure,
    q_values,
    soft_backward_induction,
)

__all__ = [
    "EnumerableLM",
    "KLOptimum",
    "MAX_STATES",
    "SUM_TOLERANCE",
    "best_of_n",
    "best_of_n_kl_bound",
    "check_logps",
    "entropy_from_logps",
    "expectation",
    "kl_from_logps",
    "tilted",
]

MAX_STATES = 2_000_000
SUM_TOLERANCE = 1e-4
"""Probabilities of all responses, from a model in float32, sum to 1 to within this."""


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
            InvalidHyperparameterError: fewer than two tokens, or a tree of more than two million
                prefixes.
            InvalidPolicyError: a row that is not a distribution.
        """
        n_tokens = len(tokens)
        if n_tokens < 2 or max_length < 1:
            raise InvalidHyperparameterError(
                "an enumerable model needs two tokens or more and max_length >= 1."
            )
        n_live = [(n_tokens - 1) ** length for length in range(max_length)]
        total = 1 + n_tokens * sum(n_live)
        if total > MAX_STATES:
            raise InvalidHyperparameterError(
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
        return self.prefix_log_probabilities(policy)[self.responses]

    def prefix_log_probabilities(self, policy: np.ndarray | None = None) -> np.ndarray:
        """(S,) log of the chance that a response begins with each prefix; default pi_ref."""
        with np.errstate(divide="ignore"):
            steps = np.log(self.policy if policy is None else policy)
        log_reach = np.full(self.n_states, -np.inf)
        log_reach[0] = 0.0
        for length in range(self.max_length):
            parents = np.flatnonzero((self.lengths == length) & (self.children[:, 0] >= 0))
            log_reach[self.children[parents]] = log_reach[parents, None] + steps[parents]
        return log_reach

    def prefix_chances(self, log_probabilities: np.ndarray) -> np.ndarray:
        """(S,) P(s), summed over the responses that begin with s, of any distribution over them.

        Args:
            log_probabilities: (R,).
        """
        mass = np.zeros(self.n_states)
        mass[self.responses] = np.exp(log_probabilities)
        live = self.children[:, 0] >= 0
        for length in range(self.max_length - 1, -1, -1):
            parents = np.flatnonzero((self.lengths == length) & live)
            mass[parents] = mass[self.children[parents]].sum(axis=1)
        return mass

    def response_ids(self, numbers: Sequence[int] | np.ndarray | None = None) -> list[list[int]]:
        """Token numbers of responses, the end token included; default all R.

        Args:
            numbers: which responses, by their place in `responses`.
        """
        states = self.responses if numbers is None else self.responses[np.asarray(numbers, int)]
        return [self.prefixes[s, : self.lengths[s]].tolist() for s in states]

    def response_numbers(self, responses: Sequence[Sequence[int]]) -> np.ndarray:
        """(n,) places in `responses` of responses given as token numbers.

        Raises:
            ResponseError: one that this model cannot write.
        """
        place = {int(state): k for k, state in enumerate(self.responses)}
        found = []
        for tokens in responses:
            state = 0
            for token in tokens:
                known = state >= 0 and 0 <= token < len(self.tokens)
                state = int(self.children[state, token]) if known else -1
            if state not in place:
                raise ResponseError(
                    f"{list(tokens)} is no response of this model: it ends at the end token "
                    f"({len(self.tokens) - 1}) or at {self.max_length} tokens, and nowhere else."
                )
            found.append(place[state])
        return np.array(found, dtype=int)

    def sample(
        self, n: int, rng: np.random.Generator, policy: np.ndarray | None = None
    ) -> np.ndarray:
        """(n,) responses drawn at random, by their place in `responses`."""
        pmf = np.exp(self.sequence_log_probabilities(policy))
        return rng.choice(len(pmf), size=n, p=pmf / pmf.sum())

    def token_policy(self, log_probabilities: np.ndarray) -> np.ndarray:
        """(S, A) the next-token probabilities that make up a distribution over responses.

        pi(a | s) = P(s a) / P(s), where P(s) sums the responses that begin with s. So *any*
        distribution over responses is a policy. Where P(s) = 0 the row is pi_ref's.

        Args:
            log_probabilities: (R,).
        """
        mass, live = self.prefix_chances(log_probabilities), self.children[:, 0] >= 0
        policy = self.policy.copy()
        reached = np.flatnonzero(live & (mass > 0))
        policy[reached] = mass[self.children[reached]] / mass[reached, None]
        return policy

    def prefix_values(
        self, response_reward: np.ndarray, policy: np.ndarray | None = None
    ) -> np.ndarray:
        """(S,) V(x, y_<t): the reward to be expected from here on; 0 once the response is over.

        Args:
            response_reward: (R,). policy: (S, A), default pi_ref.
        """
        policy = self.policy if policy is None else policy
        return evaluate_policy(self.mdp(response_reward), policy, horizon=self.max_length)[0]

    def policy_gradient(
        self, response_reward: np.ndarray, policy: np.ndarray | None = None
    ) -> np.ndarray:
        """(S, A) gradient of the expected reward with respect to the logits of a tabular softmax.

            dJ / dz(s,a) = Pr(s) pi(a|s) (Q(s,a) - V(s))

        Source: Sutton et al. 2000, "Policy gradient methods ...", theorem 1, with the softmax's own
        derivative put in.

        Args:
            response_reward: (R,). policy: (S, A), default pi_ref.
        """
        policy = self.policy if policy is None else policy
        tree = self.mdp(response_reward)
        values = evaluate_policy(tree, policy, horizon=self.max_length)[0]
        reach = occupancy_measure(tree, policy, horizon=self.max_length)  # (S, A)
        return reach * (q_values(tree, values) - values[:, None])

    def kl_optimum(
        self, response_reward: np.ndarray, beta: float, reference: np.ndarray | None = None
    ) -> KLOptimum:
        """The policy that maximises E[r] - beta KL(pi || pi_ref), by the soft planner of floor 1.

        Args:
            response_reward: (R,). beta: the price of a nat. reference: (S, A), default pi_ref.
        """
        plan = soft_backward_induction(
            self.mdp(response_reward),
            self.max_length,
            beta=beta,
            reference=self.policy if reference is None else reference,
        )
        policy = np.where(self.children[:, :1] >= 0, plan.policy[0], self.policy)
        return KLOptimum(
            policy,
            self.sequence_log_probabilities(policy),
            plan.values[0],
            float(plan.values[0, 0]) / beta,
        )


@dataclass(frozen=True)
class KLOptimum:
    """The optimum of RLHF: pi*(y|x) = pi_ref(y|x) exp(r(x,y) / beta) / Z(x).

    Attributes:
        policy: (S, A).
        log_probabilities: (R,) log pi*(y|x).
        values: (S,) soft values V(x, y_<t), in units of reward.
        log_partition: log Z(x) = V(x) / beta.
    """

    policy: np.ndarray
    log_probabilities: np.ndarray
    values: np.ndarray
    log_partition: float


# --- distributions over responses, as (R,) log-probabilities ------------------------------------


def check_logps(log_p: ArrayLike, name: str = "log_p") -> np.ndarray:
    """(R,) float64, after checking that these are the log-probabilities of a distribution.

    Raises:
        ShapeError: not one axis.
        NotStochasticError: NaN, an entry above 0, or probabilities that do not sum to 1: they may
            be probabilities themselves, or log-probabilities of a part of the responses.
    """
    logps = np.asarray(log_p, dtype=float)
    if logps.ndim != 1:
        raise ShapeError(f"{name} has shape {logps.shape}; expected (responses,).")
    total = float(np.exp(logps).sum())
    if not (abs(total - 1) < SUM_TOLERANCE and logps.max() < SUM_TOLERANCE):
        raise NotStochasticError(
            f"{name} must be log-probabilities of all responses; exp of them sums to {total:.6g}, "
            "not 1. Take np.log of probabilities, or the functions of irlbook.metrics."
        )
    return logps


def expectation(log_p: ArrayLike, values: ArrayLike) -> float:
    """E_p[values]; responses of probability zero do not count, whatever their value.

    Raises:
        ShapeError, NotStochasticError: `log_p` holds no log-probabilities (:func:`check_logps`).
    """
    p = np.exp(check_logps(log_p))
    return float(np.sum(p * np.where(p > 0, values, 0.0)))


def entropy_from_logps(log_p: ArrayLike) -> float:
    """H(p) = -sum_y p(y) log p(y), in nats, of log-probabilities (R,).

    Raises:
        ShapeError, NotStochasticError: as for `expectation`. Of probabilities:
            :func:`irlbook.metrics.entropy`.
    """
    return -expectation(log_p, log_p)


def kl_from_logps(log_p: ArrayLike, log_q: ArrayLike) -> float:
    """KL(p || q) = sum_y p(y) log (p(y) / q(y)) >= 0; infinite where q forbids what p does.

    Both are log-probabilities (R,) of the same responses, in nats.

    From a policy to its reference, KL(pi || pi_ref) is what RLHF pays for (reverse KL);
    KL(p_data || pi) is what SFT minimises (forward KL).

    Raises:
        ShapeError, NotStochasticError: as for `expectation`, or two lengths. Of probabilities:
            :func:`irlbook.metrics.kl_divergence`.
    """
    p, q = check_logps(log_p), check_logps(log_q, "log_q")
    if p.shape != q.shape:
        raise ShapeError(f"log_p {p.shape} and log_q {q.shape} must hold the same responses.")
    with np.errstate(invalid="ignore"):  # -inf - -inf where both are zero
        return expectation(p, p - q)


def tilted(
    log_reference: np.ndarray, response_reward: np.ndarray, beta: float
) -> tuple[np.ndarray, float]:
    """((R,) log p, log Z) with p = pi_ref exp(r / beta) / Z: the optimum of RLHF in closed form."""
    if not beta > 0:
        raise InvalidHyperparameterError(f"beta={beta} must be positive: it prices a nat of KL.")
    scores = log_reference + np.asarray(response_reward) / beta
    log_partition = float(np.logaddexp.reduce(scores))
    return scores - log_partition, log_partition


def best_of_n(log_p: np.ndarray, scores: np.ndarray, n: int) -> np.ndarray:
    """(R,) log-probabilities of the best of n independent responses, ties broken at random.

    With F(s) the probability of a score <= s, and F_-(s) of one < s, the winners of score s have
    probability F(s)^n - F_-(s)^n, which they share in proportion to p.

    Source: Beirami et al. 2024, "Theoretical guarantees on the best-of-n alignment policy",
    lemma 1, extended to ties.

    Args:
        log_p: (R,) of the responses. scores: (R,) what "best" is judged by. n: at least 1.

    Raises:
        InvalidHyperparameterError: n < 1.
        ShapeError, NotStochasticError: `log_p` holds no log-probabilities.
    """
    if n < 1:
        raise InvalidHyperparameterError(f"n={n}: the best of n responses needs n >= 1.")
    p = np.exp(check_logps(log_p))
    levels, level = np.unique(np.asarray(scores), return_inverse=True)
    mass = np.bincount(level, weights=p, minlength=len(levels))
    upto = np.cumsum(mass) / mass.sum()
    below = np.concatenate([[0.0], upto[:-1]])
    wins = upto**n - below**n
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(mass > 0, wins / mass, 0.0)[level]
        return np.log(p * share)


def best_of_n_kl_bound(n: int) -> float:
    """log n - (n - 1) / n: KL(best of n || p) never exceeds it, and meets it if no score ties."""
    return float(np.log(n) - (n - 1) / n)
