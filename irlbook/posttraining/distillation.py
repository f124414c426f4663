"""Best-of-n distillation: train a policy that says at once what the best of n would be.

SFT on best-of-n samples (one round of RAFT) has the best of n as its optimum, but throws away all
samples except one of n. BoNBoN uses the worst as well: IPO on (best, worst) pairs, whose target is
known in advance. For rewards without ties log(best of n / p) = log n + (n - 1) log F, so that the
margin between the best and the worst of n is, on average,

    E[log-ratio of the best - log-ratio of the worst] = (n - 1) sum_{k=1}^{n-1} 1/k = 1/(2 beta_n)

*On average* is not everywhere. A squared error against this constant is least where the log-ratio
is the best regression on it, and that is another curve than (n - 1) log F: best and worst enter it
alike, so that it is antisymmetric about the median (for n = 2 it is the straight line 2F - 1). The
SFT part has the best of n as its optimum, the IPO part has not; `bonbon_optimum` is exactly what
the two together converge to. At n = 4 it wins more often than the best of 4, at a higher KL; at n =
8 and 16 less often than the best of n. That says nothing about a run that is stopped before.

Source: Gui, Garbacea and Veitch 2024 (2406.00832), "BoNBoN alignment for large language models and
the sweetness of best-of-n sampling". The margin above follows from E[-log F] = 1/n for the best of
n and sum_{k<=n} 1/k for the worst.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from irlbook.errors import InvalidHyperparameterError, NotConvergedError, RewardError, ShapeError
from irlbook.lm.enumerable import best_of_n
from irlbook.posttraining.dpo import ipo_loss
from irlbook.posttraining.sft import sft_loss
from irlbook.training.loop import Batch, Objective

__all__ = [
    "best_and_worst",
    "best_of_n_beta",
    "best_of_n_margin",
    "bonbon_loss",
    "bonbon_optimum",
    "bond_reward",
    "objective",
]


def best_of_n_margin(n: int) -> float:
    """(n - 1) sum_{k=1}^{n-1} 1/k in nats: mean log-ratio of the best of n less that of the worst.

    For rewards without ties; with ties, and groups that tie counted as 0, it is less. n = 8 gives
    18.15 nats.
    """
    if n < 2:
        raise InvalidHyperparameterError(f"n={n}: the best and the worst need n >= 2 responses.")
    return float((n - 1) * (1 / np.arange(1, n)).sum())


def best_of_n_beta(n: int) -> float:
    """beta_n = 1/(2 (n - 1) sum_{k=1}^{n-1} 1/k): the IPO beta whose target is that margin."""
    return 1 / (2 * best_of_n_margin(n))


def bonbon_loss(
    policy_logps: Tensor, reference_logps: Tensor, n: int, alpha: float = 0.005
) -> Tensor:
    """(P,) a (-log pi(y_best)) + (1 - a) (log-ratio of best - of worst - 1/(2 beta_n))^2.

    Args:
        policy_logps, reference_logps: (P, 2) summed log-probabilities, the best of n in column 0
            and the worst of the same n in column 1 (`dpo.best_against_worst` makes such pairs).
        n: samples that each pair was chosen from. alpha: in [0, 1]; small because the squared
            error of a margin in nats is much larger than the likelihood of one response.

    Source: Gui et al. 2024; alpha 0.005, and beta 0.0275 at n = 8, are those of their experiments.
    """
    if not 0 <= alpha <= 1:
        raise InvalidHyperparameterError(f"alpha is {alpha}; it is a weight in [0, 1].")
    ipo = ipo_loss(policy_logps, reference_logps, best_of_n_beta(n))
    return alpha * sft_loss(policy_logps[:, 0]) + (1 - alpha) * ipo


def objective(n: int, alpha: float = 0.005) -> Objective:
    """BoNBoN for `training.train`: groups (prompt, [best, worst]) of n samples each.

    The reference must be the policy that was sampled from: there the margin starts at 0.
    """
    margin = best_of_n_margin(n)
    if not 0 <= alpha <= 1:
        raise InvalidHyperparameterError(f"alpha is {alpha}; it is a weight in [0, 1].")

    def values(scores: Tensor, batch: Batch) -> dict[str, Tensor]:
        policy, reference = batch.per_response(scores), batch.reference  # (P, 2)
        assert reference is not None  # `needs_reference`
        ratio = (policy - reference).detach()
        return {
            "loss": bonbon_loss(policy, reference, n, alpha),
            "margin": ratio[:, 0] - ratio[:, 1],  # in nats; its target is the next one
            "target": ratio.new_full((len(ratio),), margin),
            "chosen_logp": policy.detach()[:, 0],
        }

    return Objective(f"bonbon(n={n}, alpha={alpha!r})", values, responses=2, needs_reference=True)


# Exact, for a distribution that can be written down -----------------------------------------------


def best_and_worst(log_p: np.ndarray, scores: np.ndarray, n: int) -> np.ndarray:
    """(R, R) chance that the best of n is response i and the worst is response j, i above j.

    Groups whose n scores all tie have neither; the matrix sums to 1 minus their chance. With G(a,
    b) = P(b <= score <= a)^n, level a is the highest and b the lowest of n with probability

        G(a, b) - G(a-, b) - G(a, b+) + G(a-, b+)

    (a- the next level below, b+ above), and ties within a level share by p.

    Args:
        log_p, scores: (R,). n: at least 2.
    """
    scores, p = np.asarray(scores, dtype=float), np.exp(log_p)
    if scores.shape != p.shape:
        raise ShapeError(f"log_p {p.shape} and scores {scores.shape} must be (responses,).")
    best_of_n_margin(n)  # refuses n < 2
    levels, level = np.unique(scores, return_inverse=True)
    mass = np.bincount(level, weights=p / p.sum(), minlength=len(levels))
    upto = np.concatenate([[0.0], np.cumsum(mass)])  # (L + 1,)
    high, low = np.meshgrid(np.arange(1, len(levels) + 1), np.arange(len(levels)), indexing="ij")

    def within(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.maximum(upto[a] - upto[np.minimum(b, len(levels))], 0.0) ** n

    joint = within(high, low) - within(high - 1, low)
    joint -= within(high, low + 1) - within(high - 1, low + 1)
    joint = np.where(high - 1 > low, np.maximum(joint, 0.0), 0.0)  # (L, L)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(p > 0, p / p.sum() / mass[level], 0.0)
    return joint[level][:, level] * np.outer(share, share)


def bonbon_optimum(
    log_p: np.ndarray, scores: np.ndarray, n: int, alpha: float, *, max_iterations: int = 200
) -> np.ndarray:
    """(R,) log-probabilities of the policy that minimises BoNBoN's loss over endless groups of n.

    The loss is convex in logits z = log pi + const., so Newton's method finds its minimum. alpha =
    1 gives the best of n; alpha = 0 the regression of the margin, whose unidentified level is
    settled by normalising.

    Args:
        log_p, scores: (R,), every response with a probability above 0. n: >= 2. alpha: in [0, 1].

    Raises:
        RewardError: all scores tie. NotConvergedError: not within `max_iterations`.
    """
    if not 0 <= alpha <= 1:
        raise InvalidHyperparameterError(f"alpha is {alpha}; it is a weight in [0, 1].")
    pairs = best_and_worst(log_p, scores, n)
    if not pairs.sum() > 0:
        raise RewardError("all responses score the same: no group has a best and a worst.")
    best = np.exp(best_of_n(log_p, scores, n))
    both = pairs + pairs.T
    laplacian = np.diag(both.sum(axis=1)) - both  # of sum pairs (f_i - f_j)^2
    pull = best_of_n_margin(n) * (pairs.sum(axis=1) - pairs.sum(axis=0))
    z = np.array(log_p, dtype=float)
    flat = np.ones((len(z), len(z))) / len(z)  # fixes what the loss leaves free: adding a constant

    def loss(z: np.ndarray) -> float:
        f = z - log_p
        squares = f @ laplacian @ f - 2 * pull @ f
        return alpha * (np.logaddexp.reduce(z) - best @ z) + (1 - alpha) * squares

    for _ in range(max_iterations):
        pi = np.exp(z - np.logaddexp.reduce(z))
        gradient = alpha * (pi - best) + 2 * (1 - alpha) * (laplacian @ (z - log_p) - pull)
        if np.abs(gradient).max() < 1e-12:
            break
        curvature = alpha * (np.diag(pi) - np.outer(pi, pi)) + 2 * (1 - alpha) * laplacian
        step, size, now = np.linalg.solve(curvature + flat, gradient), 1.0, loss(z)
        while loss(z - size * step) > now and size > 1e-12:
            size /= 2
        if size <= 1e-12:
            break
        z = z - size * step
    if np.abs(gradient).max() > 1e-7:
        raise NotConvergedError(
            f"the gradient is still {np.abs(gradient).max():.1e}; raise max_iterations, or leave "
            "out responses of next to no probability."
        )
    return z - np.logaddexp.reduce(z)


def bond_reward(log_p: np.ndarray, scores: np.ndarray, n: int) -> np.ndarray:
    """(R,) log(best of n / p): the reward for which the best of n is RLHF's optimum at beta = 1.

        log sum_{i=1}^n F^{n-i} F_-^{i-1}  =  log n + (n - 1) log F  where no score ties

    So best of n is KL-regularised reinforcement learning, only with the *rank* of a response for
    its reward. Whatever stretches the scores and keeps their order changes nothing.

    Args:
        log_p, scores: (R,), every response with a probability above 0.

    Source: Sessa et al. 2024 (2407.14622), theorem 1.
    """
    return best_of_n(log_p, scores, n) - log_p
