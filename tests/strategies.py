"""Hypothesis strategies: small MDPs with every awkward feature at once."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from irlbook.mdp import TabularMDP


def random_mdp(
    seed: int,
    n_states: int = 4,
    n_actions: int = 2,
    *,
    n_terminal: int = 1,
    n_start: int = 2,
    sparsity: float = 0.4,
    discount: float = 0.9,
    deterministic: bool = False,
    spread: float = 1.0,
) -> TabularMDP:
    """A random MDP: the last `n_terminal` states end it, and about `sparsity` of moves are absent.

    The first action moves from s to s + 1 with positive probability, so that an end is reached.
    """
    rng = np.random.default_rng(seed)
    moves = rng.exponential(size=(n_states, n_actions, n_states))
    moves *= rng.random(moves.shape) >= sparsity
    if deterministic:
        moves = np.eye(n_states)[rng.integers(n_states, size=(n_states, n_actions))]
        moves[:, 0] = np.eye(n_states)[np.minimum(np.arange(n_states) + 1, n_states - 1)]
    else:
        ahead = np.minimum(np.arange(n_states) + 1, n_states - 1)
        moves[np.arange(n_states), 0, ahead] += 0.1
        stuck = moves.sum(axis=2) == 0
        moves[stuck] = np.eye(n_states)[rng.integers(n_states, size=int(stuck.sum()))]
    moves /= moves.sum(axis=2, keepdims=True)
    terminal = np.arange(n_states) >= n_states - n_terminal
    reward = spread * rng.normal(size=(n_states, n_actions)) * ~terminal[:, None]
    start = np.zeros(n_states)
    begins = rng.permutation(n_states - n_terminal)[:n_start]
    start[begins] = rng.dirichlet(np.ones(len(begins)))
    return TabularMDP.create(moves, reward, start=start, discount=discount, terminal=terminal)


@st.composite
def mdps(draw, *, max_states: int = 5, discounts=(0.0, 0.5, 0.9, 0.99), terminals=(0, 1, 2)):
    """Random MDPs with terminal states, impossible moves, several start states."""
    n_terminal = draw(st.sampled_from(terminals))
    return random_mdp(
        draw(st.integers(0, 10**6)),
        draw(st.integers(n_terminal + 1, max_states)),
        draw(st.integers(1, 3)),
        n_terminal=n_terminal,
        n_start=draw(st.integers(1, 3)),
        sparsity=draw(st.sampled_from([0.0, 0.5, 0.8])),
        discount=draw(st.sampled_from(discounts)),
        deterministic=draw(st.booleans()),
        spread=draw(st.sampled_from([0.1, 1.0, 20.0])),
    )


def random_policy(mdp: TabularMDP, seed: int, horizon: int | None = None) -> np.ndarray:
    """(S, A) or (T, S, A), with some actions never taken."""
    rng = np.random.default_rng(seed)
    shape = mdp.reward.shape if horizon is None else (horizon, *mdp.reward.shape)
    weight = rng.exponential(size=shape) * (rng.random(shape) < 0.7)
    weight[..., 0] += 0.05
    return weight / weight.sum(axis=-1, keepdims=True)


def random_reference(mdp: TabularMDP, seed: int) -> np.ndarray:
    """(S, A) an unnormalised measure; it forbids some actions, never the first."""
    rng = np.random.default_rng(seed)
    weight = rng.exponential(size=mdp.reward.shape) * (rng.random(mdp.reward.shape) < 0.7)
    weight[:, 0] += 0.1
    return weight


def shuffle(mdp: TabularMDP, seed: int) -> tuple[TabularMDP, np.ndarray, np.ndarray]:
    """The same MDP with states and actions renumbered, and the two permutations."""
    rng = np.random.default_rng(seed)
    states, actions = rng.permutation(mdp.n_states), rng.permutation(mdp.n_actions)
    return mdp.permute(states, actions), states, actions
