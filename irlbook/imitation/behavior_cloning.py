"""Behaviour cloning: imitation as supervised learning, and the exact laws of what it costs.

A demonstration is read as labelled examples: in this state, the expert took that action. The
clone is the policy under which the labels are most likely. Everything here is a table and exact,
so that each law can be tested; `irlbook.imitation.networks` clones with a neural network.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from irlbook.errors import InvalidHyperparameterError, InvalidPolicyError, InvalidTrajectoryError
from irlbook.mdp import TabularMDP, Trajectories, as_numbers, check_policy, sample_trajectories

__all__ = [
    "absorbing_cost",
    "behavior_cloning",
    "clone",
    "draw",
    "intended",
    "label_counts",
    "log_loss",
    "mistakes",
    "noisy_demonstrations",
    "state_marginals",
    "trajectory_kl",
]


def clone(counts: Any, *, smoothing: float = 0.0, fallback: Any = None) -> np.ndarray:
    """The policy of maximum likelihood: how often the expert took each action in each state.

        pi(a|s) = (n(s,a) + smoothing) / sum_b (n(s,b) + smoothing),          eq 4.2.

    Args:
        counts: (S, A) labels n(s, a) >= 0.
        smoothing: added to each count, as if every action had been seen so often.
        fallback: what to do in a state without any label, about which the likelihood says nothing:
            None for uniform; "marginal" for the share of each action among all labels, which is
            what a learner that generalises would guess; or a distribution (A,).

    Returns:
        (S, A) policy.

    Raises:
        InvalidTrajectoryError: there is no label at all.
        InvalidHyperparameterError: smoothing below 0, or fallback is not a distribution.
    """
    n = np.asarray(counts, dtype=float)
    if n.ndim != 2 or not np.isfinite(n).all() or (n < 0).any():
        raise InvalidTrajectoryError(
            f"counts must be (S, A), finite and not negative; got shape {n.shape}. "
            "Build them with label_counts or Trajectories.counts."
        )
    if n.sum() == 0:
        raise InvalidTrajectoryError("there is no label to learn from; give a demonstration.")
    if not 0.0 <= smoothing < np.inf:
        raise InvalidHyperparameterError(f"smoothing must be 0 or more; got {smoothing}.")
    if fallback is None:
        guess = np.full(n.shape[1], 1.0 / n.shape[1])
    elif isinstance(fallback, str) and fallback == "marginal":
        guess = n.sum(axis=0) / n.sum()
    else:
        # Another word than "marginal" is no distribution either.
        guess = np.empty(0) if isinstance(fallback, str) else np.asarray(fallback, dtype=float)
        if guess.shape != (n.shape[1],) or (guess < 0).any() or abs(guess.sum() - 1.0) > 1e-8:
            raise InvalidHyperparameterError(
                'fallback must be None, "marginal" or a distribution over the actions.'
            )
    smooth = n + smoothing
    total = smooth.sum(axis=1, keepdims=True)
    seen = n.sum(axis=1, keepdims=True) > 0
    return np.where(seen, smooth / np.where(total > 0, total, 1.0), guess)


def behavior_cloning(
    demonstrations: Trajectories,
    mdp: TabularMDP,
    *,
    smoothing: float = 0.0,
    fallback: Any = None,
) -> np.ndarray:
    """Clone the demonstrator. Checks the demonstrations against the world first.

    Args: see `clone`.
    Returns: (S, A) policy.
    Raises:
        InvalidTrajectoryError: a demonstration is empty, leaves the state space or makes an
            impossible move; the message names the trajectory and the step.
    """
    counts = demonstrations.validate(mdp).counts(mdp.n_states, mdp.n_actions)
    return clone(counts * len(demonstrations), smoothing=smoothing, fallback=fallback)


def label_counts(states: Any, labels: Any, n_states: int, n_actions: int) -> np.ndarray:
    """(S, A) how often each action was the label of each state. Labels need not have been executed.

    Raises:
        InvalidTrajectoryError: not one label a state, not whole, or outside the world.
    """
    states, labels = as_numbers(states, "states"), as_numbers(labels, "labels")
    if states.shape != labels.shape:
        raise InvalidTrajectoryError(
            f"there must be one label a state: got {states.shape} states, {labels.shape} labels. "
            "The state in which a trajectory ended has no label."
        )
    for name, numbers, size in (("state", states, n_states), ("label", labels, n_actions)):
        wrong = np.flatnonzero((numbers < 0) | (numbers >= size))
        if wrong.size:
            raise InvalidTrajectoryError(
                f"row {wrong[0]}: {name} {numbers[wrong[0]]} is outside 0..{size - 1}."
            )
    flat = np.bincount(states * n_actions + labels, minlength=n_states * n_actions)
    return flat.reshape(n_states, n_actions).astype(float)


def log_loss(policy: Any, counts: Any) -> float:
    """Mean -log pi(a|s) over labels, in nats: the loss of behaviour cloning, eq 4.1.

    Infinite when the policy gives probability 0 to a label that was seen.
    """
    policy, counts = np.asarray(policy, dtype=float), np.asarray(counts, dtype=float)
    with np.errstate(divide="ignore"):
        nats = np.where(counts > 0, -np.log(policy), 0.0)
    return float((counts * nats).sum() / counts.sum())


def state_marginals(mdp: TabularMDP, policy: Any, horizon: int) -> np.ndarray:
    """(T, S) Pr(s_t = s) for t < T when `policy` (S, A) acts. No discount."""
    policy = check_policy(mdp, policy)
    if policy.ndim != 2:
        raise InvalidPolicyError("give a stationary policy (S, A).")
    if horizon < 1:
        raise InvalidHyperparameterError(f"horizon must be 1 or more; got {horizon}.")
    backwards = mdp.transitions.T.tocsr()
    here = np.empty((horizon, mdp.n_states))
    here[0] = mdp.start
    for t in range(horizon - 1):
        here[t + 1] = backwards @ (here[t][:, None] * policy).reshape(-1)
    return here * ~mdp.terminal


def trajectory_kl(mdp: TabularMDP, expert: Any, policy: Any, horizon: int) -> float:
    """KL(p_E(tau) || p_pi(tau)) of T-step trajectories, in nats, eq 4.3.

    The dynamics cancel: it is sum_t E_{s_t ~ expert} KL(pi_E(.|s_t) || pi(.|s_t)).
    """
    expert, policy = np.asarray(expert, dtype=float), np.asarray(policy, dtype=float)
    with np.errstate(divide="ignore", invalid="ignore"):
        per_state = np.where(expert > 0, expert * (np.log(expert) - np.log(policy)), 0.0).sum(1)
    visits = state_marginals(mdp, expert, horizon).sum(axis=0)
    return float((visits * np.where(visits > 0, per_state, 0.0)).sum())


def mistakes(
    mdp: TabularMDP, policy: Any, expert: Any, horizon: int, *, driver: Any = None
) -> float:
    """Expected number of steps, of T, at which `policy` would not do as the expert does.

        E_{s_t ~ driver} sum_t sum_a pi(a|s_t) (1 - pi_E(a|s_t)),             eq 4.4.

    Args:
        expert: (S, A); meant to be deterministic, so that a mistake is a mistake.
        driver: (S, A) the policy that chooses the states: None for `policy` itself (what the
            learner meets), `expert` for the expert's own (what behaviour cloning trains on).
    """
    wrong = (np.asarray(policy) * (1.0 - np.asarray(expert))).sum(axis=1)
    marginals = state_marginals(mdp, policy if driver is None else driver, horizon)
    return float((marginals @ wrong).sum())


def absorbing_cost(error: Any, horizon: Any) -> np.ndarray:
    """Expected cost of T steps when each errs with chance e, and one error costs all that follows.

        J = T - (1 - e) (1 - (1 - e)^T) / e,                                  eq 4.6,

    about e T (T + 1) / 2 while e T is small, and about T - 1/e once it is large.

    Args: error: in [0, 1]; horizon: T >= 0. Arrays broadcast.
    """
    e, steps = np.broadcast_arrays(np.asarray(error, float), np.asarray(horizon, float))
    if ((e < 0) | (e > 1)).any():
        raise InvalidHyperparameterError("error is a probability: it must lie in [0, 1].")
    with np.errstate(divide="ignore", invalid="ignore"):
        survived = -np.expm1(steps * np.log1p(-e))  # 1 - (1 - e)^T without cancellation
        exact = steps - (1.0 - e) * survived / e
    # The formula subtracts two numbers near T: for tiny e T the series is more accurate.
    series = e * steps * (steps + 1) / 2 * (1.0 - e * (steps - 1) / 3)
    return np.where(e * steps < 1e-5, series, exact)


def noisy_demonstrations(
    mdp: TabularMDP, expert: Any, noise: float, n: int, horizon: int, rng: np.random.Generator
) -> tuple[Trajectories, np.ndarray]:
    """Demonstrations in which a disturbance sometimes acts in the expert's place.

    With probability `noise` a step is taken at random (uniformly); the *label* is what the expert
    wanted all the same. So the data show how to come back, and no one is asked afterwards. The
    idea of DART (Laskey et al. 2017), with a noise that is given instead of fitted.

    Returns:
        the trajectories as executed, and labels (sum(lengths),): the expert's intention in each of
        ``trajectories.acting_states``. Learn from ``label_counts(acting_states, labels, ...)``,
        never from the executed actions.
    """
    if not 0.0 <= noise <= 1.0:
        raise InvalidHyperparameterError(f"noise is a probability; got {noise}.")
    expert = check_policy(mdp, expert)
    executed = (1.0 - noise) * expert + noise / mdp.n_actions
    seen = sample_trajectories(mdp, executed, n, horizon, rng)
    return seen, intended(expert, seen, noise, rng)


def intended(
    expert: np.ndarray, seen: Trajectories, noise: float, rng: np.random.Generator
) -> np.ndarray:
    """(sum(lengths),) the expert's own choices, given what was executed under the noise.

    Where the expert is deterministic this is its action. Else the executed action is kept with
    the probability that it was the expert's, and drawn afresh otherwise, so that the pair has the
    right joint distribution.
    """
    states, actions = seen.acting_states, seen.actions
    wanted = (1.0 - noise) * expert[states, actions]
    own = rng.random(len(states)) * (wanted + noise / expert.shape[1]) < wanted
    return np.where(own, actions, draw(expert[states], rng))


def draw(probabilities: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(n,) one action from each row of (n, A) probabilities."""
    cumulative = np.cumsum(probabilities, axis=1)
    target = rng.random(len(cumulative))[:, None] * cumulative[:, -1:]
    return (cumulative <= target).sum(axis=1)
