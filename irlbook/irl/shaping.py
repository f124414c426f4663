"""Potential-based shaping: rewards that differ and cannot be told apart by any behaviour.

Ng, Harada and Russell 1999. F(s, s') = gamma Phi(s') - Phi(s) telescopes along every path, so it
adds the same number, -Phi(s_0), to all that start alike - provided that Phi is 0 where it ends.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from irlbook.errors import NotFiniteError, ShapeError, TerminalPotentialError
from irlbook.mdp import TabularMDP

__all__ = ["potential_shaping", "shaped"]


def potential_shaping(mdp: TabularMDP, potential: Any) -> np.ndarray:
    """(S, A) expected shaping reward gamma E[Phi(s')] - Phi(s); 0 in terminal states, eq 5.5.

    Args:
        potential: (S,) Phi, 0 in terminal states.

    Raises:
        TerminalPotentialError: Phi of a terminal state is not 0. The sum along a path that ends
            there would keep a term gamma^T Phi(end), and the best policy could change.
    """
    phi = np.asarray(potential, dtype=float)
    if phi.shape != (mdp.n_states,):
        raise ShapeError(f"potential has shape {phi.shape}; expected ({mdp.n_states},).")
    if not np.isfinite(phi).all():
        raise NotFiniteError("the potential holds NaN or infinity.")
    wrong = np.flatnonzero(mdp.terminal & (phi != 0.0))
    if wrong.size:
        raise TerminalPotentialError(
            f"the potential of terminal state {wrong[0]} is {phi[wrong[0]]:.4g}; it must be 0 "
            f"({wrong.size} such states). Set it to 0 there: a constant may be subtracted from a "
            "potential only in worlds that never end."
        )
    shaping = (mdp.discount * (mdp.transitions @ phi)).reshape(mdp.reward.shape) - phi[:, None]
    return np.where(mdp.terminal[:, None], 0.0, shaping)


def shaped(mdp: TabularMDP, potential: Any) -> TabularMDP:
    """The same world with `potential_shaping` added to its reward. Same optimal policies.

    All values shift: V' = V - Phi and Q' = Q - Phi, for every policy, hard or soft.
    """
    return mdp.with_reward(mdp.reward + potential_shaping(mdp, potential))
