"""One policy for many: welfare of groups, preferences that go in a circle, and Nash policies.

A policy is a distribution over R responses, a reference policy is given by its log-probabilities
(R,). Two kinds of input: *utilities* u (G, R) of groups, which can be added up; or a table of
*preferences* p (R, R), p_ij the chance that i is preferred to j, which need come from no utility.

Sources: Chakraborty et al. 2024 (2402.08925, MaxMin); Nash 1950 (the bargaining product); Azar et
al. 2023 (2310.12036, Psi); Munos et al. 2023 (2312.00886, Nash learning); Kreweras 1965 and
Fishburn 1984 (maximal lotteries).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy.optimize import minimize
from scipy.sparse.csgraph import connected_components
from scipy.special import logsumexp, softmax

from irlbook.errors import (
    DivergentPartitionError,
    InvalidHyperparameterError,
    NotConvergedError,
    NotStochasticError,
    ShapeError,
)
from irlbook.lm.enumerable import tilted
from irlbook.mdp import as_floats
from irlbook.preferences.hidden_context import check_preferences
from irlbook.rl.fictitious_play import solve_matrix_game

__all__ = [
    "Welfare",
    "WelfarePolicy",
    "condorcet_winner",
    "exploitability",
    "majority_cycles",
    "nash_policy",
    "psi_policy",
    "regularised_nash",
    "self_play",
    "welfare_policy",
]

Welfare = Literal["average", "maxmin", "nash"]


def _reference(log_reference: Any, responses: int | None = None) -> np.ndarray:
    logs = np.asarray(log_reference, dtype=float)
    if responses is not None and logs.shape != (responses,):
        raise ShapeError(f"log_reference has shape {logs.shape}; expected ({responses},).")
    if logs.ndim != 1 or abs(np.exp(logs).sum() - 1) > 1e-6:
        raise NotStochasticError(
            "log_reference must be (R,) log-probabilities of all responses, whose exp adds up to 1."
        )
    return logs


def _distribution(chances: Any, name: str, responses: int) -> np.ndarray:
    pi = as_floats(chances, name)
    if pi.shape != (responses,):
        raise ShapeError(f"{name} has shape {pi.shape}; expected ({responses},).")
    if not ((pi >= 0).all() and abs(pi.sum() - 1) < 1e-6):
        raise NotStochasticError(f"{name} must hold probabilities that add up to 1.")
    return pi


def _tilt(log_reference: np.ndarray, reward: np.ndarray, beta: float) -> tuple[np.ndarray, float]:
    """((R,) policy, beta log Z): maximiser and maximum of E[reward] - beta KL (chapter 3)."""
    log_policy, log_partition = tilted(log_reference, reward, beta)
    return np.exp(log_policy), beta * log_partition


# Welfare of groups --------------------------------------------------------------------------------


@dataclass(frozen=True)
class WelfarePolicy:
    """A policy that maximises a welfare of groups less a price of KL.

    Attributes:
        policy: (R,). weights: (G,) of the groups: the policy is the KL-regularised optimum of the
            reward sum_g weights_g u_g. utilities: (G,) expected utility of each group.
        welfare: the value of the objective, KL price included.
        gap: the value that duality allows above it; 0 at the optimum.
    """

    policy: np.ndarray
    weights: np.ndarray
    utilities: np.ndarray
    welfare: float
    gap: float


def welfare_policy(
    utilities: Any, log_reference: Any, beta: float, kind: Welfare = "average", shares: Any = None
) -> WelfarePolicy:
    """The policy that maximises a welfare of the groups less beta KL(pi || pi_ref).

        average: sum_g s_g E u_g        maxmin: min_g E u_g
        nash:    sum_g s_g log(E u_g - E_ref u_g): what each group gains over the reference

    Each is solved in its dual, which has one weight for each group and is convex: the policy is
    always pi_ref exp(sum_g w_g u_g / beta) / Z. With w = shares it is the average; for maxmin w is
    the distribution that minimises beta log Z; for nash w_g = s_g / gain_g.

    Args:
        utilities: (G, R). log_reference: (R,). beta: price of a nat, > 0. kind: of welfare.
        shares: (G,) how common the groups are; None: equally. Maxmin does not look at them.

    Raises:
        ShapeError, InvalidHyperparameterError, NotStochasticError: bad input.
        DivergentPartitionError: nash, and a group whose utility is constant: it cannot gain.
        NotConvergedError: the dual was not solved to 1e-6 of the scale.
    """
    u, logs = as_floats(utilities, "utilities"), _reference(log_reference)
    if u.ndim != 2 or u.shape[1] != len(logs):
        raise ShapeError(f"utilities have shape {u.shape}; expected (groups, {len(logs)}).")
    if not beta > 0:
        raise InvalidHyperparameterError(f"beta is {beta}; a price of KL is above 0.")
    s = np.full(len(u), 1 / len(u)) if shares is None else as_floats(shares, "shares")
    if s.shape != (len(u),) or not ((s > 0).all() and abs(s.sum() - 1) < 1e-9):
        raise NotStochasticError("shares must be (G,), above 0, and add up to 1.")
    if kind == "average":
        return _welfare(u, logs, beta, s, lambda v: float(s @ v))
    if kind == "maxmin":
        return _maxmin(u, logs, beta)
    if kind == "nash":
        return _nash_welfare(u, logs, beta, s)
    raise InvalidHyperparameterError(f"kind is {kind!r}; use average, maxmin or nash.")


def _welfare(u, logs, beta, weights, value: Callable[[np.ndarray], float], bound=None):
    policy, optimum = _tilt(logs, weights @ u, beta)
    reached = u @ policy
    kl = (float(weights @ reached) - optimum) / beta
    welfare = value(reached) - beta * kl
    return WelfarePolicy(
        policy, weights, reached, welfare, (optimum if bound is None else bound) - welfare
    )


def _maxmin(u, logs, beta):
    """min over distributions w of beta log Z(w): a convex program in G numbers.

    The minimum over the simplex is sought in the logits of w, from each corner's neighbourhood and
    the middle; the gap of the answer bounds what is missing.
    """

    def dual(w):
        policy, optimum = _tilt(logs, w @ u, beta)
        return optimum, u @ policy

    start = np.full(len(u), 1 / len(u))
    scale = np.ptp(u) or 1.0  # where nobody has a wish, the reference stays
    found = minimize(
        lambda w: tuple(x / scale for x in dual(w)),
        start,
        jac=True,
        method="SLSQP",
        bounds=[(0, 1)] * len(u),
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1, "jac": lambda w: np.ones(len(u))},
        options={"maxiter": 1000, "ftol": 1e-15},
    )
    w = np.maximum(found.x, 0)
    answer = _welfare(u, logs, beta, w / w.sum(), lambda v: float(v.min()))
    if answer.gap > 1e-5 * scale:
        raise NotConvergedError(f"maxmin stopped {answer.gap:.2g} below its bound; raise beta.")
    return answer


def _nash_welfare(u, logs, beta, s):
    base = u @ np.exp(logs)
    if (np.ptp(u[:, np.isfinite(logs)], axis=1) < 1e-12).any():
        raise DivergentPartitionError("a group is indifferent: its gain is 0 and its log -inf.")

    def dual(log_w):
        w = np.exp(log_w)
        policy, optimum = _tilt(logs, w @ u, beta)
        value = optimum - w @ base + s @ (np.log(s) - log_w) - 1
        return value, w * (u @ policy - base) - s

    start = np.log(s / np.ptp(u, axis=1))
    found = minimize(dual, start, jac=True, method="BFGS", options={"gtol": 1e-11, "maxiter": 2000})
    w, value = np.exp(found.x), float(found.fun)

    def gain(v):
        return float(s @ np.log(np.maximum(v - base, 1e-300)))

    answer = _welfare(u, logs, beta, w, gain, value)
    if not answer.gap < 1e-6:
        raise NotConvergedError(
            f"the product of gains stopped {answer.gap:.2g} below its bound. Where no policy is "
            "better than the reference for every group, it has no optimum."
        )
    return answer


# Majorities ---------------------------------------------------------------------------------------


def condorcet_winner(preferences: Any) -> int | None:
    """The item that is preferred to each other by more than half, or None: there may be none."""
    p = check_preferences(preferences)
    beats = (p > 0.5).sum(axis=1) == len(p) - 1
    return int(np.flatnonzero(beats)[0]) if beats.any() else None


def majority_cycles(preferences: Any) -> list[list[int]]:
    """Groups of two items or more inside which majorities lead in a circle.

    They are the strong components of the graph with an arrow i -> j where p_ij > 1/2. No reward
    orders the items of such a group as the majorities do.
    """
    p = check_preferences(preferences)
    parts, label = connected_components(p > 0.5, directed=True, connection="strong")
    groups = [np.flatnonzero(label == k).tolist() for k in range(parts)]
    return [group for group in groups if len(group) > 1]


# Policies from preferences ------------------------------------------------------------------------


def psi_policy(
    preferences: Any,
    log_reference: Any,
    tau: float,
    psi: Callable[[np.ndarray], np.ndarray] | None = None,
    behaviour: Any = None,
) -> np.ndarray:
    """(R,) argmax of E_{y~pi, y'~mu} Psi(p(y > y')) - tau KL(pi || pi_ref).

    It is pi_ref(y) exp(E_{y'~mu} Psi(p(y > y')) / tau) / Z. With the identity (IPO) the reward is
    the Borda count against mu; with the logit it is Bradley–Terry's, and infinite where a choice
    is certain.

    Source: Azar et al. 2023 (2310.12036).

    Args:
        psi: of an array of chances; None: the identity. behaviour: (R,) mu; None: the reference.

    Raises:
        DivergentPartitionError: Psi is infinite somewhere. InvalidHyperparameterError: tau <= 0.
        ShapeError, NotStochasticError: a reference or a behaviour that does not fit.
    """
    p = check_preferences(preferences)
    logs = _reference(log_reference, len(p))
    if not tau > 0:
        raise InvalidHyperparameterError(f"tau is {tau}; a price of KL is above 0.")
    mu = np.exp(logs) if behaviour is None else _distribution(behaviour, "behaviour", len(p))
    with np.errstate(divide="ignore", invalid="ignore"):
        reward = (p if psi is None else psi(p)) @ mu
    if not np.isfinite(reward).all():
        raise DivergentPartitionError(
            "Psi is infinite: some choice is certain, p = 0 or 1, and a logit of it pays for any "
            "amount of KL. Use a bounded Psi (the identity), or smooth the preferences."
        )
    return _tilt(logs, reward, tau)[0]


def exploitability(policy: Any, preferences: Any, log_reference: Any = None, tau: float = 0.0):
    """How much the best opponent wins against a policy: 0 at a Nash policy, and only there.

        max_y p(y > policy) - 1/2;  with tau > 0 the opponent pays, and the policy paid, tau KL

    Source: Munos et al. 2023 (duality gap of the game, here one half of it).
    """
    p = check_preferences(preferences)
    pi = _distribution(policy, "policy", len(p))
    payoff = p @ pi
    if not tau:
        return float(payoff.max() - 0.5)
    logs = _reference(log_reference, len(p))
    kl = float(np.sum(pi * (np.log(np.maximum(pi, 1e-300)) - logs)))
    return _tilt(logs, payoff, tau)[1] + tau * kl - 0.5


def nash_policy(preferences: Any) -> np.ndarray:
    """(R,) a policy that no other beats: max_pi min_y p(pi > y), by a linear program.

    Social choice calls it a maximal lottery (Kreweras 1965; Fishburn 1984). It puts all weight on
    a Condorcet winner where there is one.
    """
    p = check_preferences(preferences)
    policy = np.maximum(solve_matrix_game(p)[0], 0)  # the row player's, who receives p(pi > y)
    return policy / policy.sum()


def self_play(
    preferences: Any, steps: int, rate: float, start: Any = None
) -> tuple[np.ndarray, np.ndarray]:
    """((steps, R) policies, (R,) their average): each step shifts to what beats the present policy.

        pi_{t+1}(y) is proportional to pi_t(y) exp(rate p(y > pi_t))

    The average approaches a Nash policy (Freund and Schapire 1999); the last policy need not. After
    T steps the average is exploitable by at most log(1 / min start) / (rate T) + rate / 8.

    Args:
        preferences: (R, R). steps, rate: of multiplicative weights. start: (R,); None: uniform.
    """
    p = check_preferences(preferences)
    if steps < 1 or not rate > 0:
        raise InvalidHyperparameterError("steps must be at least 1 and rate above 0.")
    pi = np.full(len(p), 1 / len(p)) if start is None else _distribution(start, "start", len(p))
    path = np.empty((steps, len(p)))
    with np.errstate(divide="ignore"):
        logits = np.log(pi)
    for t in range(steps):
        path[t] = softmax(logits)
        logits = logits + rate * (p @ path[t])
        logits -= logits.max()
    return path, path.mean(axis=0)


def regularised_nash(
    preferences: Any,
    log_reference: Any,
    tau: float,
    *,
    tolerance: float = 1e-10,
    max_steps: int = 200_000,
) -> np.ndarray:
    """(R,) the fixed point of self-play with a price of KL:

        pi(y) is proportional to pi_ref(y) exp(p(y > pi) / tau)

    It is the one Nash policy of the game in which each player pays tau KL(. || pi_ref). Found by
    mirror descent against the present policy, log pi <- (1 - eta tau) log pi + eta tau log pi_ref
    + eta p(y > pi), with a step eta small enough for a game that only goes round.

    Source: Munos et al. 2023 (2312.00886), who step from, and play against, a policy that is pulled
    towards the reference (Nash-MD).

    Raises:
        NotConvergedError: the exploitability is still above the tolerance.
        InvalidHyperparameterError: tau <= 0. ShapeError, NotStochasticError: as `psi_policy`.
    """
    p = check_preferences(preferences)
    logs = _reference(log_reference, len(p))
    if not tau > 0:
        raise InvalidHyperparameterError(f"tau is {tau}; without a price use nash_policy.")
    rate = tau / (tau**2 + 0.25)  # eta: the rotation of the game is at most 1/2
    log_pi = logs.copy()
    for _ in range(max_steps):
        pi = softmax(log_pi)
        answer = logs + p @ pi / tau
        if np.abs(pi - softmax(answer)).max() < tolerance:
            return pi
        log_pi = (1 - rate * tau) * (log_pi - logsumexp(log_pi)) + rate * tau * answer
    raise NotConvergedError(f"no fixed point within {max_steps} steps; raise tau or max_steps.")
