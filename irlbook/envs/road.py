"""A road with bends to learn and a ditch to climb out of: the world of imitation's laws."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from irlbook.envs.base import checked_int
from irlbook.errors import InvalidEnvironmentError
from irlbook.mdp import TabularMDP

__all__ = ["ACTIONS", "road"]

ACTIONS = ("left", "right", "climb")


def road(
    n_bends: int,
    depth: int | None,
    rng: np.random.Generator,
    *,
    power: float = 1.0,
    discount: float = 1.0,
) -> tuple[TabularMDP, np.ndarray]:
    """Drive through bends drawn at random; a wrong turn ends `depth` steps down in a ditch.

    States 0 .. n_bends - 1: on the road, in front of that bend. The others: in the ditch, 1 ..
    depth steps down. Actions: 0 left, 1 right, 2 climb. In a bend one of left and right stays on
    the road, and the next bend is drawn afresh, bend m with probability proportional to
    (m + 1)^-power; any other action falls to the bottom of the ditch. In the ditch only climbing
    helps, by one step. Each step that ends off the road costs 1. Start on the road.

    Demonstrations of the expert never show the ditch, and rarely the rare bends. A policy that
    errs with probability e a bend and never climbs pays the T^2 law of `absorbing_cost`; one that
    climbs pays about `depth` for each error.

    Args:
        n_bends: how many bends, at least 1.
        depth: u, what one error costs an expert; None: a ditch that nobody leaves.
        rng: draws which way each bend goes.
        power: how rare the rare bends are, >= 0.

    Returns: the world, and the expert's policy (S, 3). (In a ditch without exit it climbs, too.)
    Raises: InvalidEnvironmentError, which names the parameter and the mend.
    """
    n_bends = checked_int("n_bends", n_bends, 1)
    steps = 1 if depth is None else checked_int("depth", depth, 1)
    if not 0.0 <= power < np.inf:
        raise InvalidEnvironmentError(f"power is {power!r}. Give a number of 0 or more.")
    chance = np.arange(1.0, n_bends + 1) ** -power
    chance /= chance.sum()
    way = rng.integers(2, size=n_bends)
    n_states, bottom = n_bends + steps, n_bends + steps - 1
    following = np.concatenate([chance, np.zeros(steps)])

    dense = np.zeros((n_states, 3, n_states))
    bends = np.arange(n_bends)
    dense[:n_bends, :, bottom] = 1.0
    dense[bends, way, bottom] = 0.0
    dense[bends, way] = following
    for k in range(n_bends, n_states):
        dense[k, :2, k] = 1.0
        if depth is None:
            dense[k, 2, k] = 1.0
        elif k == n_bends:
            dense[k, 2] = following
        else:
            dense[k, 2, k - 1] = 1.0
    cost = dense[:, :, n_bends:].sum(axis=2)
    expert = np.zeros((n_states, 3))
    expert[bends, way] = 1.0
    expert[n_bends:, 2] = 1.0
    mdp = TabularMDP.create(
        sparse.csr_array(dense.reshape(-1, n_states)), -cost, start=following, discount=discount
    )
    return mdp, expert
