"""DAgger: let the learner drive, ask the expert what it would have done, learn from all of it.

Ross, Gordon and Bagnell 2011 (arXiv 1011.0686), algorithm 3.1. Here also the two quantities that
its guarantee is made of: how much one error costs an expert who takes over at once (`recovery`),
and the identity that turns errors into cost (`performance_difference`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from irlbook.errors import InvalidHyperparameterError
from irlbook.imitation.behavior_cloning import (
    clone,
    draw,
    label_counts,
    mistakes,
    state_marginals,
)
from irlbook.mdp import TabularMDP, check_policy, sample_trajectories

__all__ = [
    "DaggerConfig",
    "DaggerResult",
    "Fit",
    "dagger",
    "performance_difference",
    "recovery",
    "values_to_go",
]

Fit = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class DaggerConfig:
    """Hyper-parameters of DAgger."""

    rounds: int = 10  # how many times the learner drives and the expert labels
    trajectories: int = 5  # drives a round
    horizon: int = 50  # T, steps of a drive
    mixing: float = 0.0  # beta_i = mixing^i: chance that the expert's action is executed in round i
    aggregate: bool = True  # learn from all rounds; False keeps the last only (and forgets)

    def __post_init__(self) -> None:
        for name in ("rounds", "trajectories", "horizon"):
            if getattr(self, name) < 1:
                raise InvalidHyperparameterError(f"{name} must be at least 1.")
        if not 0.0 <= self.mixing <= 1.0:
            raise InvalidHyperparameterError("mixing is a probability: it must lie in [0, 1].")


@dataclass(frozen=True)
class DaggerResult:
    """What a run leaves.

    Attributes:
        policies: (rounds, S, A) the policy learned after each round.
        counts: (S, A) labels that the last policy was learned from.
        labels: (rounds,) how many questions the expert had answered after each round.
        own_error: (rounds,) mistakes a step of each policy on the states that it visits itself.
        best: index of the policy with the least own error, which is the one to keep.
    """

    policies: np.ndarray
    counts: np.ndarray
    labels: np.ndarray
    own_error: np.ndarray

    @property
    def best(self) -> int:
        return int(np.argmin(self.own_error))


def dagger(
    mdp: TabularMDP,
    expert: Any,
    config: DaggerConfig | None = None,
    *,
    rng: np.random.Generator,
    fit: Fit = clone,
) -> DaggerResult:
    """Data set aggregation.

    Round 0 is behaviour cloning: the expert drives (beta_0 = 1). In round i > 0 each step is the
    expert's with chance beta_i, else the learner's; the expert labels every state on the way; the
    next policy is learned from the labels of all rounds.

    Args:
        expert: (S, A) the policy that answers questions, in any state.
        rng: draws drives and answers.
        fit: counts (S, A) -> policy (S, A).

    Returns:
        DaggerResult. `own_error` is exact, by dynamic programming on `mdp`; a real learner has to
        estimate it from fresh drives.
    """
    config = config or DaggerConfig()
    expert = check_policy(mdp, expert)
    counts = np.zeros((mdp.n_states, mdp.n_actions))
    policy, policies, own_error = expert, [], []
    labels: list[int] = []
    for i in range(config.rounds):
        beta = config.mixing**i
        executed = beta * expert + (1.0 - beta) * policy
        seen = sample_trajectories(mdp, executed, config.trajectories, config.horizon, rng)
        answers = draw(expert[seen.acting_states], rng)
        new = label_counts(seen.acting_states, answers, mdp.n_states, mdp.n_actions)
        counts = counts + new if config.aggregate else new
        policy = fit(counts)
        policies.append(policy)
        labels.append(len(answers) + (labels[-1] if labels else 0))
        own_error.append(mistakes(mdp, policy, expert, config.horizon) / config.horizon)
    return DaggerResult(np.array(policies), counts, np.array(labels), np.array(own_error))


def values_to_go(mdp: TabularMDP, policy: Any, horizon: int) -> tuple[np.ndarray, np.ndarray]:
    """Values (T+1, S) and Q (T, S, A) of a policy (S, A), by steps done; discounted."""
    policy = check_policy(mdp, policy)
    values = np.zeros((horizon + 1, mdp.n_states))
    q = np.zeros((horizon, mdp.n_states, mdp.n_actions))
    for t in range(horizon - 1, -1, -1):
        future = (mdp.transitions @ values[t + 1]).reshape(q[t].shape)
        q[t] = mdp.reward + mdp.discount * future
        values[t] = (policy * q[t]).sum(axis=1)
    return values, q


def recovery(mdp: TabularMDP, expert: Any, horizon: int) -> float:
    """u, the most that one wrong action costs when the expert takes over at once, eq 4.9.

    u = max_{t,s,a} V^E_t(s) - Q^E_t(s, a)        over all states, reachable or not.
    """
    values, q = values_to_go(mdp, expert, horizon)
    return float((values[:-1, :, None] - q)[:, ~mdp.terminal].max())


def performance_difference(mdp: TabularMDP, policy: Any, expert: Any, horizon: int) -> float:
    """J(pi_E) - J(pi) as a sum of single errors along the learner's own way, eq 4.8.

        sum_t E_{s_t ~ pi} [ V^E_t(s_t) - Q^E_t(s_t, pi) ]        for a discount of 1.

    Source: Kakade and Langford 2002, lemma 6.1.
    """
    policy = check_policy(mdp, policy)
    world = mdp.with_discount(1.0)
    values, q = values_to_go(world, expert, horizon)
    lost = values[:-1] - (policy * q).sum(axis=2)
    return float((state_marginals(world, policy, horizon) * lost).sum())
