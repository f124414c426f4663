"""A language model that cannot write everything, fitted to a demonstrator: to cover or to seek.

A real model is smaller than the people whose texts it learns from. Here the smallness is exact:
some prefixes must share one next-token distribution. Within this class

    forward KL(p_E || pi)  is minimised by SFT, in closed form: the shared rows are averages,
    reverse KL(pi || p_E)  by policy gradients on the reward log p_E - log pi, what an
                           adversarial reward pays; it has a minimum for each mode it can seek.

Sources: Sun and van der Schaar 2024 (2405.15624) for the two divergences of language models;
Ghasemipour et al. 2020 (1911.02256) for occupancies.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize

from irlbook.errors import (
    InfiniteDivergenceError,
    InvalidHyperparameterError,
    NotConvergedError,
    ShapeError,
)
from irlbook.lm.enumerable import EnumerableLM, check_logps, kl_from_logps

__all__ = ["Sought", "TiedPolicy", "response_occupancy"]


def response_occupancy(lm: EnumerableLM, log_p: np.ndarray) -> np.ndarray:
    """(S, A) rho(s, a): the chance that a response of p passes through prefix s and takes a.

    It sums to the expected length in tokens, the end token included. For a policy's own
    distribution it is the occupancy measure of the token tree.

    Args:
        log_p: (R,) log-probabilities of all responses.

    Source: eq 5 of the survey (2507.13158), summed over the responses that share the prefix.
    """
    log_p = check_logps(log_p)
    if log_p.shape != lm.responses.shape:
        raise ShapeError(f"log_p has shape {log_p.shape}; expected {lm.responses.shape}.")
    mass = lm.prefix_chances(log_p)
    live = lm.children[:, :1] >= 0
    return np.where(live, mass[lm.children], 0.0)


class Sought(NamedTuple):
    """A minimum of the reverse KL.

    Attributes:
        policy: (S, A). log_p: (R,). kl: KL(pi || p_E) in nats.
    """

    policy: np.ndarray
    log_p: np.ndarray
    kl: float


@dataclass(frozen=True)
class TiedPolicy:
    """The policies on a token tree that share next-token rows among groups of prefixes.

    Attributes:
        groups: (S,) which row a prefix uses, from 0; those of ended prefixes do not matter.
    """

    lm: EnumerableLM
    groups: np.ndarray

    def __post_init__(self) -> None:
        groups = np.asarray(self.groups)
        if groups.shape != (self.lm.n_states,) or groups.min() < 0:
            raise ShapeError(f"groups has shape {groups.shape}; one number >= 0 for each prefix.")

    @property
    def n_groups(self) -> int:
        """How many rows there are."""
        return int(self.groups.max()) + 1

    def policy(self, logits: np.ndarray) -> np.ndarray:
        """(S, A) next-token probabilities of logits (G, A)."""
        rows = np.exp(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True))
        live = self.lm.children[:, :1] >= 0
        return np.where(live, rows[self.groups], self.lm.policy)

    def cover(self, log_expert: np.ndarray) -> np.ndarray:
        """(S, A) the policy of least forward KL(p_E || pi), eq 18.3: SFT with endless data.

        A row is the average of the demonstrator's, weighed by how often it passes there. A group
        that the demonstrator never visits has no data, and stays uniform.
        """
        rho = response_occupancy(self.lm, log_expert)
        counts = np.zeros((self.n_groups, len(self.lm.tokens)))
        np.add.at(counts, self.groups, rho)
        total = counts.sum(axis=1, keepdims=True)
        rows = np.where(total > 0, counts / np.where(total > 0, total, 1.0), 1 / counts.shape[1])
        live = self.lm.children[:, :1] >= 0
        return np.where(live, rows[self.groups], self.lm.policy)

    def reverse_kl(self, logits: np.ndarray, log_expert: np.ndarray) -> tuple[float, np.ndarray]:
        """KL(pi || p_E) in nats and its gradient by the logits (G, A), eq 18.5.

        The gradient is minus the policy gradient on the reward log p_E - log pi, which is held
        fixed: the score function has mean zero, so what the reward itself depends on cancels.
        """
        policy = self.policy(logits)
        log_pi = self.lm.sequence_log_probabilities(policy)
        by_state = -self.lm.policy_gradient(log_expert - log_pi, policy)  # (S, A)
        gradient = np.zeros_like(logits)
        np.add.at(gradient, self.groups, by_state)
        return kl_from_logps(log_pi, log_expert), gradient

    def seek(
        self, log_expert: np.ndarray, start: np.ndarray, *, max_iterations: int = 500
    ) -> Sought:
        """A local minimum of the reverse KL, from logits (G, A), by L-BFGS on the exact gradient.

        Args:
            log_expert: (R,) the demonstrator; every response needs a probability above 0.

        Raises:
            InfiniteDivergenceError: the demonstrator never writes a response that a policy can.
            NotConvergedError: not within `max_iterations`.
        """
        log_expert = check_logps(log_expert, "log_expert")
        if not np.isfinite(log_expert).all():
            raise InfiniteDivergenceError(
                f"the demonstrator never writes response {int(np.isinf(log_expert).argmax())}, so "
                "the reverse KL of every softmax policy is infinite. Smooth the demonstrator."
            )
        start = np.asarray(start, dtype=float)
        if start.shape != (self.n_groups, len(self.lm.tokens)):
            raise InvalidHyperparameterError(
                f"start has shape {start.shape}; expected logits "
                f"({self.n_groups}, {len(self.lm.tokens)})."
            )

        def value(flat: np.ndarray) -> tuple[float, np.ndarray]:
            kl, gradient = self.reverse_kl(flat.reshape(start.shape), log_expert)
            return kl, gradient.ravel()

        found = minimize(
            value,
            start.ravel(),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": max_iterations, "ftol": 1e-15, "gtol": 1e-9},
        )
        if np.abs(found.jac).max() > 1e-5:
            raise NotConvergedError(
                f"the gradient is still {np.abs(found.jac).max():.1e} after {found.nit} steps; "
                "raise max_iterations."
            )
        policy = self.policy(found.x.reshape(start.shape))
        log_p = self.lm.sequence_log_probabilities(policy)
        return Sought(policy, log_p, float(found.fun))
