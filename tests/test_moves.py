"""Moves that are chosen, and luck: the split, and soft passes with it against those without."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import random_mdp

from irlbook import envs, moves
from irlbook.envs.labyrinth import labyrinth
from irlbook.irl.maxent import Causal, causal_dual, causal_hessian, fit_max_causal_ent
from irlbook.mdp import TabularMDP

WORLDS = {
    "grid": lambda: envs.gridworld(5, 4, discount=0.9),
    "slippery grid": lambda: envs.gridworld(5, 4, slip=0.3, discount=0.95),
    "grid with walls": lambda: envs.gridworld(
        5, 5, slip=0.2, walls=[(1, 1), (2, 3)], goals={(0, 4): 1.0}, discount=1.0
    ),
    "grid without an end": lambda: envs.gridworld(4, 4, slip=0.1, goals={}, discount=1.0),
    "absorbing goal": lambda: envs.gridworld(4, 4, slip=0.1, terminal_goals=False, discount=0.9),
    "certain": lambda: random_mdp(3, 7, 3, deterministic=True, discount=0.9),
    "labyrinth": lambda: labyrinth(3).mdp,
}


def rebuilt(mdp):
    """(S, A, S) from the split."""
    split = mdp.chosen_moves
    dense = split.chance * np.eye(mdp.n_states)[split.target]
    if split.luck is not None:
        dense = dense + split.luck.toarray()[:, None]
    dense[mdp.terminal] = 0.0
    return dense


@pytest.mark.parametrize("name", WORLDS)
def test_the_split_adds_up_to_the_transitions(name):
    mdp = WORLDS[name]()
    np.testing.assert_allclose(rebuilt(mdp), mdp.dense(), atol=1e-14)
    split = mdp.chosen_moves
    if split.luck is not None:
        assert split.luck.data.min() > 0


def test_a_state_in_which_all_actions_do_the_same_has_a_split_too():
    moves_there = np.zeros((3, 2, 3))
    moves_there[0] = [[0.1, 0.8, 0.1], [0.1, 0.1, 0.8]]
    moves_there[1] = [0.1, 0.75, 0.15]
    moves_there[2] = [0.8, 0.1, 0.1]
    mdp = TabularMDP.create(moves_there, np.zeros(3))
    np.testing.assert_allclose(rebuilt(mdp), mdp.dense(), atol=1e-14)
    moves_there[1] = [0.3, 0.35, 0.35]  # nothing there is as certain as a chosen move
    assert TabularMDP.create(moves_there, np.zeros(3)).chosen_moves is None


@pytest.mark.parametrize("name", ["one effect more", "two chances", "one action"])
def test_other_worlds_have_none(name):
    dense = WORLDS["slippery grid"]().dense()
    ends = [19]
    if name == "one effect more":
        dense[0, 0] = 0.0
        dense[0, 0, [0, 1, 2]] = [0.3, 0.4, 0.3]
    if name == "two chances":
        dense[5, 1] = 0.5 * dense[5, 1] + 0.5 * dense[5, 2]
    if name == "one action":
        dense = dense[:, :1]
    assert TabularMDP.create(dense, np.zeros(20), terminal=ends).chosen_moves is None
    assert envs.garnet(30, 3, branching=3, rng=np.random.default_rng(0)).chosen_moves is None


def both_roads(mdp, phi, horizon, beta, reference):
    """The same problem by the split and by the general road."""
    fast, plain = (Causal(mdp, phi, None, horizon, beta, reference) for _ in range(2))
    assert fast.chosen is not None
    plain.chosen = None
    return fast, plain


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(sorted(WORLDS)),
    st.integers(0, 10**6),
    st.sampled_from(["states", "pairs"]),
    st.sampled_from([0.3, 1.0, 2.0]),
    st.booleans(),
    st.integers(1, 30),
)
def test_both_roads_give_value_gradient_hessian_and_policy(
    name, seed, kind, beta, with_reference, horizon
):
    mdp, rng = WORLDS[name](), np.random.default_rng(seed)
    shape = mdp.reward.shape[:1] if kind == "states" else mdp.reward.shape
    phi, w = rng.normal(size=(*shape, 3)), rng.normal(size=3)
    reference = None
    if with_reference:
        reference = rng.uniform(0.1, 2.0, size=mdp.reward.shape)
        reference[rng.random(mdp.reward.shape) < 0.3] = 0.0
        reference[:, 0] = 1.0
    fast, plain = both_roads(mdp, phi, horizon, beta, reference)
    one, other = fast.evaluate(w), plain.evaluate(w)
    assert type(one.plan).__name__ == "ChosenPlan" and type(other.plan).__name__ == "CausalPlan"
    assert one.value == pytest.approx(other.value, abs=1e-10)
    np.testing.assert_allclose(one.gradient, other.gradient, atol=1e-10)
    np.testing.assert_allclose(one.plan.policy, other.plan.policy, atol=1e-11)
    np.testing.assert_allclose(one.plan.visits, other.plan.visits, atol=1e-12)
    np.testing.assert_allclose(fast.hessian(one.plan), plain.hessian(other.plan), atol=1e-9)


def test_where_the_desirability_underflows_the_general_road_is_taken():
    grid = envs.gridworld(6, 6, slip=0.1, discount=1.0)
    phi = (~grid.terminal).astype(float)[:, None]
    for cost in (-200.0, -1e4):
        fast, plain = both_roads(grid, phi, 40, 1.0, None)
        with np.errstate(over="raise", invalid="raise", divide="raise"):
            one = fast.evaluate(np.array([cost]))
        assert type(one.plan).__name__ == "CausalPlan"
        assert one.value == pytest.approx(plain.evaluate(np.array([cost])).value)


def test_without_the_product_in_place_the_numbers_are_the_same(monkeypatch):
    grid = WORLDS["slippery grid"]()
    phi, w = np.random.default_rng(0).normal(size=(20, 2)), np.array([1.0, -1.0])
    before = causal_dual(w, grid, phi, None, horizon=12)
    curved = causal_hessian(w, grid, phi, horizon=12)
    monkeypatch.setattr(moves, "_sparsetools", None)
    after = causal_dual(w, grid, phi, None, horizon=12)
    assert before[0] == pytest.approx(after[0], abs=1e-13)
    np.testing.assert_allclose(before[1], after[1], atol=1e-13)
    np.testing.assert_allclose(causal_hessian(w, grid, phi, horizon=12), curved, atol=1e-12)


def test_a_fit_by_the_split_finds_the_weights():
    grid = envs.gridworld(6, 6, slip=0.2, goals={}, discount=1.0)
    rng = np.random.default_rng(0)
    phi, truth = rng.normal(size=(36, 3)), np.array([0.5, -1.0, 0.3])
    expert = causal_dual(truth, grid, phi, None, horizon=15)[1]
    found = fit_max_causal_ent(grid, phi, expert, horizon=15, tolerance=1e-10)
    np.testing.assert_allclose(found.weights, truth, atol=1e-8)
    assert found.policy.shape == (15, 36, 5)
