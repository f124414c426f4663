"""Bayesian IRL: how much do the demonstrations say about each direction of the reward?

The demonstrator is the soft policy under r_w = w . phi. With a Gaussian prior on w,

    p(w | D)  ~  exp( sum_{(s,a) in D} log pi_w(a|s)  -  |w|^2 / (2 sigma^2) )

(Ramachandran & Amir 2007 with the policy of maximum causal entropy in the place of theirs). Two
roads to it: Laplace's approximation (mode and curvature) and Markov chain Monte Carlo.

The curvature is the Hessian of the dual of `irlbook.irl.maxent` with the visits of the
demonstrations in the place of the model's. The dual itself is no likelihood when there is a
discount: it counts step t gamma^t times. The likelihood counts each choice once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.stats import norm

from irlbook.errors import (
    InvalidHyperparameterError,
    InvalidTrajectoryError,
    NotConvergedError,
    ShapeError,
)
from irlbook.irl.chosen_moves import ChosenPlan
from irlbook.irl.maxent import Causal, CausalPlan
from irlbook.mdp import TabularMDP, Trajectories
from irlbook.planning import SolverReport, check_horizon

__all__ = [
    "Chains",
    "Laplace",
    "Posterior",
    "calibration_ranks",
    "choice_counts",
    "coverage",
    "many_log_likelihoods",
    "metropolis",
]


def choice_counts(
    demonstrations: Trajectories, mdp: TabularMDP, horizon: int | None = None
) -> np.ndarray:
    """How often each choice was made: (S, A), or (T, S, A) by time when there is a horizon.

    Counts, not means and not discounted: five equal demonstrations say five times as much as one.

    Raises:
        InvalidTrajectoryError: a state, action or move that the MDP does not have, or a
            demonstration longer than the horizon.
    """
    demonstrations.validate(mdp)
    n_states, n_actions = mdp.reward.shape
    pair = demonstrations.acting_states * n_actions + demonstrations.actions
    if horizon is None:
        return np.bincount(pair, minlength=mdp.reward.size).reshape(n_states, n_actions)
    check_horizon(horizon)
    if demonstrations.lengths.max() > horizon:
        longest = int(demonstrations.lengths.argmax())
        raise InvalidTrajectoryError(
            f"demonstration {longest} has {demonstrations.lengths[longest]} steps; the horizon is "
            f"{horizon}. Raise the horizon, or cut the demonstrations."
        )
    cell = demonstrations.steps * mdp.reward.size + pair
    counts = np.bincount(cell, minlength=horizon * mdp.reward.size)
    return counts.reshape(horizon, n_states, n_actions)


class Posterior:
    """p(w | D) for a linear reward and the prior N(0, sigma^2 I), up to its constant.

    Args:
        features: (S, K) or (S, A, K). counts: from `choice_counts`; (T, S, A) means a horizon.
        prior_deviation: sigma, one number or (K,). beta, reference: of the demonstrator, who is
            known to be soft.

    Raises:
        ShapeError, InvalidHyperparameterError: counts or prior of a wrong kind.
    """

    def __init__(
        self,
        mdp: TabularMDP,
        features: Any,
        counts: Any,
        *,
        prior_deviation: float | np.ndarray,
        beta: float = 1.0,
        reference: Any = None,
    ):
        self.counts = np.asarray(counts, dtype=float)
        if self.counts.shape[-2:] != mdp.reward.shape or self.counts.ndim not in (2, 3):
            raise ShapeError(
                f"counts have shape {self.counts.shape}; expected (S, A) = {mdp.reward.shape} or "
                "(T, S, A), from choice_counts."
            )
        if not np.isfinite(self.counts).all() or (self.counts < 0).any():
            raise InvalidTrajectoryError("counts must be finite and not negative.")
        horizon = len(self.counts) if self.counts.ndim == 3 else None
        self.mdp, self.beta = mdp, beta
        self._problem = Causal(mdp, features, None, horizon, beta, reference)
        if ((self.counts > 0) & ~self._allowed).any():
            *_, s, a = np.argwhere((self.counts > 0) & ~self._allowed)[0]
            raise InvalidTrajectoryError(
                f"a demonstration takes action {a} in state {s}, which the reference forbids: its "
                "likelihood is zero under every reward."
            )
        self.size = self._problem.features.count
        sigma = np.asarray(prior_deviation, dtype=float)
        if sigma.shape not in ((), (self.size,)) or not ((0 < sigma) & (sigma < np.inf)).all():
            raise InvalidHyperparameterError(
                f"prior_deviation is {prior_deviation}; a proper prior needs one positive number, "
                f"or one for each of the {self.size} weights."
            )
        self.prior_precision = np.broadcast_to(sigma**-2.0, (self.size,))  # (K,)

    @property
    def _allowed(self) -> np.ndarray:
        log_reference = self._problem.log_reference
        return (
            np.ones(self.mdp.reward.shape, bool)
            if log_reference is None
            else log_reference > -np.inf
        )

    def log_likelihood(self, weights: Any) -> tuple[float, np.ndarray]:
        """sum log pi_w(a|s) over all choices, in nats, and its gradient (K,).

        With n the counts and Q - V the advantages, d/dw sum n (Q - V) / beta is linear in
        dV/dw = E_pi[phi + gamma P dV/dw]: one solve with the transposed chain, or one pass
        forwards in time, whatever the number of weights.
        """
        value, gradient, _ = self._evaluate(np.asarray(weights, dtype=float))
        return value, gradient

    def log_density(self, weights: Any) -> tuple[float, np.ndarray]:
        """Log posterior without its constant, and its gradient (K,)."""
        w = np.asarray(weights, dtype=float)
        value, gradient, _ = self._evaluate(w)
        return value - 0.5 * self.prior_precision @ w**2, gradient - self.prior_precision * w

    def fisher(self, weights: Any) -> np.ndarray:
        """(K, K) Fisher information, sum_s n(s) Cov_{a ~ pi}[dQ(s,a)/dw] / beta^2."""
        return self._fisher(self._evaluate(np.asarray(weights, dtype=float))[2])

    def _evaluate(self, w: np.ndarray) -> tuple[float, np.ndarray, CausalPlan | ChosenPlan]:
        problem, counts, gamma = self._problem, self.counts, self.mdp.discount
        plan = problem.evaluate(w).plan
        policy = plan.policy
        with np.errstate(divide="ignore", invalid="ignore"):
            value = float(np.where(counts > 0, counts * np.log(policy), 0.0).sum())
        backwards = self.mdp.transitions.T
        alive = ~self.mdp.terminal
        if counts.ndim == 2:
            assert isinstance(plan, CausalPlan) and plan.system is not None
            arrivals = gamma * (backwards @ counts.reshape(-1)) - counts.sum(axis=1)
            flow = plan.system.solve(arrivals * alive, transpose=True, tolerance=1e-11)
            signed = counts + policy * (flow * alive)[:, None]
        else:
            signed = np.zeros(self.mdp.reward.shape)
            before, flow = None, np.zeros(self.mdp.n_states)
            for n, pi in zip(counts, policy, strict=True):
                if before is not None:
                    flow = gamma * (backwards @ before.reshape(-1))
                flow = (flow - n.sum(axis=1)) * alive
                before = n + pi * flow[:, None]
                signed += before
        gradient = problem.features.expectations(signed) / self.beta
        return value, gradient, plan

    def _fisher(self, plan: CausalPlan | ChosenPlan) -> np.ndarray:
        system = plan.system if isinstance(plan, CausalPlan) else None
        seen = CausalPlan(plan.policy, self.counts.sum(axis=-1), system)
        return self._problem.hessian(seen) / self.beta

    def laplace(
        self, *, start: Any = None, tolerance: float = 1e-5, max_iterations: int = 2_000
    ) -> Laplace:
        """Mode and curvature: N(w_MAP, (Fisher + 1 / sigma^2)^-1).

        Raises:
            NotConvergedError: the gradient at the end is above `tolerance`.
        """
        first = np.zeros(self.size) if start is None else np.array(start, dtype=float)

        def negative(w: np.ndarray) -> tuple[float, np.ndarray]:
            value, gradient = self.log_density(w)
            return -value, -gradient

        options = {"maxiter": max_iterations, "gtol": 0.5 * tolerance, "ftol": 0.0, "maxcor": 30}
        done = minimize(negative, first, jac=True, method="L-BFGS-B", options=options)
        mode, steps = done.x, int(done.nit)
        for _ in range(20):  # a few Fisher scoring steps settle what L-BFGS leaves
            slope = -negative(mode)[1]
            if np.abs(slope).max() <= tolerance:
                break
            precision = self.fisher(mode) + np.diag(self.prior_precision)
            step = np.linalg.solve(precision, slope)
            while negative(mode + step)[0] > negative(mode)[0] and np.abs(step).max() > 1e-12:
                step = 0.5 * step
            mode, steps = mode + step, steps + 1
        density, slope = self.log_density(mode)
        residual = float(np.abs(slope).max())
        report = SolverReport("laplace", residual <= tolerance, steps, residual, tolerance)
        if not report.converged:
            raise NotConvergedError(
                f"no mode after {steps} steps: the gradient of the log posterior is {residual:.3g} "
                f"(tolerance {tolerance:.3g}). Give a start, a smaller prior_deviation, or a "
                "larger tolerance."
            )
        precision = self.fisher(mode) + np.diag(self.prior_precision)
        return Laplace(mode, precision, density, report)


@dataclass(frozen=True)
class Laplace:
    """A Gaussian around the mode.

    Attributes:
        mode: (K,) w_MAP. precision: (K, K) Fisher information plus that of the prior.
        log_density: of the posterior at the mode, without its constant. report: of the mode.
    """

    mode: np.ndarray
    precision: np.ndarray
    log_density: float
    report: SolverReport

    @cached_property
    def covariance(self) -> np.ndarray:
        """(K, K)."""
        return np.linalg.inv(self.precision)

    @property
    def deviation(self) -> np.ndarray:
        """(K,) standard deviations."""
        return np.sqrt(np.diag(self.covariance))

    def interval(self, level: float = 0.9) -> np.ndarray:
        """(K, 2) central intervals, one weight at a time."""
        reach = norm.ppf(0.5 + 0.5 * level) * self.deviation
        return np.column_stack([self.mode - reach, self.mode + reach])

    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """(n, K) draws."""
        root = np.linalg.cholesky(self.covariance)
        return self.mode + rng.normal(size=(n, len(self.mode))) @ root.T


# --- many weights at once, for Monte Carlo --------------------------------------------------------


def many_log_likelihoods(
    weights: np.ndarray,
    mdp: TabularMDP,
    features: np.ndarray,
    counts: np.ndarray,
    *,
    beta: float = 1.0,
) -> np.ndarray:
    """(B,) log-likelihoods of B weight vectors in one pass, for small worlds with a horizon.

    A second implementation of `Posterior.log_likelihood`: dense arrays, no gradient.

    Args:
        weights: (B, K). features: (S, K) or (S, A, K).
        counts: (T, S, A) for all, or (B, T, S, A): one set of demonstrations for each.
    """
    P = mdp.dense()  # (S, A, S)
    n_states, n_actions, _ = P.shape
    phi = np.asarray(features, dtype=float)
    phi = np.repeat(phi[:, None], n_actions, axis=1) if phi.ndim == 2 else phi
    phi = np.where(mdp.terminal[:, None, None], 0.0, phi)
    reward = np.tensordot(weights, phi, axes=([1], [2]))  # (B, S, A)
    step = mdp.discount * P.reshape(-1, n_states).T  # (S, S*A)
    values = np.zeros((len(weights), n_states))
    total = np.zeros(len(weights))
    for t in range(counts.shape[-3] - 1, -1, -1):
        q = (reward + (values @ step).reshape(reward.shape)) / beta
        top = q.max(axis=-1, keepdims=True)
        log_z = top + np.log(np.exp(q - top).sum(axis=-1, keepdims=True))
        total += ((q - log_z) * counts[..., t, :, :]).sum(axis=(-2, -1))
        values = beta * log_z[..., 0] * ~mdp.terminal
    return total


@dataclass(frozen=True)
class Chains:
    """What a sampler visited.

    Attributes:
        draws: (n, B, K) after the burn-in. accepted: (B,) share of accepted proposals.
    """

    draws: np.ndarray
    accepted: np.ndarray

    def r_hat(self) -> np.ndarray:
        """(K,) split R-hat of B chains on *one* posterior (Gelman et al. 2013, section 11.4).

        Near 1 when the halves of all chains agree; above 1.05, sample longer.
        """
        half = len(self.draws) // 2
        parts = np.concatenate([self.draws[:half], self.draws[half : 2 * half]], axis=1)
        within = parts.var(axis=0, ddof=1).mean(axis=0)
        between = parts.mean(axis=0).var(axis=0, ddof=1)
        return np.sqrt((half - 1) / half + between / within)

    def effective_size(self) -> np.ndarray:
        """(B, K) draws that independent ones would be worth, from the autocorrelations.

        Sums them up to the first pair of lags with a negative sum (Geyer 1992).
        """
        n = len(self.draws)
        x = self.draws - self.draws.mean(axis=0)
        spectrum = np.abs(np.fft.rfft(x, 2 * n, axis=0)) ** 2
        correlation = np.fft.irfft(spectrum, axis=0)[:n]
        correlation = correlation / np.maximum(correlation[:1], 1e-300)
        pairs = correlation[: n - n % 2].reshape(n // 2, 2, *x.shape[1:]).sum(axis=1)
        pairs = np.where(np.cumprod(pairs > 0, axis=0), pairs, 0.0)
        return n / np.maximum(2.0 * pairs.sum(axis=0) - 1.0, 1.0)


def metropolis(
    log_density: Callable[[np.ndarray], np.ndarray],
    start: np.ndarray,
    scale: np.ndarray,
    n: int,
    rng: np.random.Generator,
    *,
    burn_in: int = 0,
) -> Chains:
    """Random-walk Metropolis, B chains side by side (Metropolis et al. 1953).

    Propose w' = w + scale z with z ~ N(0, I); go there with chance min(1, p(w') / p(w)).

    Args:
        log_density: (B, K) -> (B,), each row its own chain and, if wanted, its own posterior.
        start: (B, K). scale: (K, K) or (B, K, K). Good is 2.38 / sqrt(K) times a root of the
            posterior's covariance (Roberts, Gelman & Gilks 1997): Laplace gives one.
        n: steps that are kept after `burn_in`.

    Raises:
        InvalidHyperparameterError: a start that has no density.
    """
    here = np.array(start, dtype=float)
    density = log_density(here)
    if not np.isfinite(density).all():
        raise InvalidHyperparameterError(
            f"chain {int(np.flatnonzero(~np.isfinite(density))[0])} starts where the density is "
            "zero or not a number; start near the mode."
        )
    draws = np.empty((n, *here.shape))
    accepted = np.zeros(len(here))
    for step in range(burn_in + n):
        push = np.einsum("...ij,...j->...i", scale, rng.normal(size=here.shape))
        there = here + push
        new = log_density(there)
        go = np.log(rng.random(len(here))) < new - density
        here = np.where(go[:, None], there, here)
        density = np.where(go, new, density)
        if step >= burn_in:
            draws[step - burn_in] = here
            accepted += go
    return Chains(draws, accepted / n)


# --- is the posterior honest? ---------------------------------------------------------------------


def coverage(truth: np.ndarray, intervals: np.ndarray) -> np.ndarray:
    """(K,) share of simulated experts whose true weight lies in its interval.

    Args:
        truth: (B, K). intervals: (B, K, 2).
    """
    return ((intervals[..., 0] <= truth) & (truth <= intervals[..., 1])).mean(axis=0)


def calibration_ranks(truth: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """(B, K) how many posterior draws lie below the truth, from 0 to n.

    If the truth came from the prior, the demonstrations from the model and the draws, nearly
    independent, from the right posterior, each rank is uniform (simulation-based calibration,
    Talts et al. 2018). Posteriors too narrow pile up ranks at both ends, too wide in the middle.

    Args:
        truth: (B, K). draws: (n, B, K).
    """
    return (draws < truth).sum(axis=0)
