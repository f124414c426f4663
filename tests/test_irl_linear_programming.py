"""Ng and Russell's cone and linear program, and potential shaping, against exact planning."""

import numpy as np
import pytest
from scipy.optimize import linprog

from irlbook import errors, planning
from irlbook.envs import garnet, gridworld
from irlbook.irl.linear_programming import (
    chosen_actions,
    is_optimal,
    ng_russell,
    optimality_constraints,
)
from irlbook.irl.shaping import potential_shaping, shaped
from irlbook.mdp import TabularMDP


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def corner():
    """Ng and Russell's grid: 5 x 5, 30 % noise, reward in one corner. World, R, policy."""
    reward = np.zeros(25)
    reward[4] = 1.0
    world = gridworld(5, 5, slip=0.3, stay=False, state_reward=reward, goals={}, discount=0.9)
    best = planning.policy_iteration(world).policy
    return world, reward, np.eye(4)[best.argmax(axis=1)]


def deterministic(rng, n_states, n_actions):
    return np.eye(n_actions)[rng.integers(n_actions, size=n_states)]


# --- the cone -------------------------------------------------------------------------------------


def test_the_cone_is_where_the_planner_agrees(rng):
    """G R >= 0 exactly when no other action has a larger Q, on random rewards and near the edge."""
    mdp = garnet(4, 2, 2, rng, discount=0.8)
    policy = deterministic(rng, 4, 2)
    G = optimality_constraints(mdp, policy)
    agree = []
    for _ in range(400):
        reward = rng.normal(size=4)
        world = mdp.with_reward(reward)
        q = planning.q_values(world, planning.evaluate_policy(world, policy))
        best = bool((q.max(1) - q[policy == 1] <= 1e-12).all())
        assert best == bool((G @ reward >= -1e-12).all()) == is_optimal(mdp, policy, reward)
        agree.append(best)
    assert 0 < sum(agree) < 400


def test_zero_and_constants_are_always_inside(rng):
    mdp = garnet(6, 3, 3, rng, discount=0.9)
    G = optimality_constraints(mdp, deterministic(rng, 6, 3))
    assert G.shape == (12, 6)
    np.testing.assert_allclose(G @ np.zeros(6), 0.0)
    np.testing.assert_allclose(G @ np.ones(6), 0.0, atol=1e-12)


def test_it_is_a_convex_cone(rng, corner):
    world, reward, policy = corner
    a, b = (ng_russell(world, policy, l1=l1).reward for l1 in (0.0, 1.0))
    for x, y in rng.random((20, 2)) * 5:
        assert is_optimal(world, policy, x * a + y * b + reward)


def test_a_tied_policy_is_refused(corner):
    world, _, policy = corner
    tied = policy.copy()
    tied[7] = 0.25
    with pytest.raises(errors.InvalidPolicyError, match="state 7"):
        ng_russell(world, tied)
    with pytest.raises(errors.InvalidPolicyError, match="stationary"):
        chosen_actions(world, np.stack([policy, policy]))


def test_a_policy_is_sure_up_to_rounding_and_terminal_states_do_not_count():
    world = gridworld(1, 3, goals={(0, 2): 1.0}, stay=False, discount=0.9)
    policy = np.eye(4)[[3, 1, 2]]
    policy[2] = 0.25  # the goal
    assert chosen_actions(world, policy).tolist() == [3, 1, 0]
    for loss, sure in ((5e-7, True), (2e-6, False)):
        nearly = policy.copy()
        nearly[0] = [loss, 0.0, 0.0, 1 - loss]
        if sure:
            assert chosen_actions(world, nearly)[0] == 3
        else:
            with pytest.raises(errors.InvalidPolicyError, match=r"state 0 \(1 such states\)"):
                chosen_actions(world, nearly)


def test_a_loss_below_the_tolerance_is_a_tie():
    """Two ways out of one state that differ by d in the reward of where they lead."""
    moves = np.zeros((3, 2, 3))
    moves[0, 0, 1] = moves[0, 1, 2] = moves[1, :, 1] = moves[2, :, 2] = 1.0
    world = TabularMDP.create(moves, np.zeros(3), discount=0.5)
    policy = np.eye(2)[[0, 0, 0]]
    for d, optimal in ((0.0, True), (1e-6, False)):
        assert is_optimal(world, policy, [0.0, 0.0, d]) is optimal  # it loses d / (1 - 0.5) / 2
    assert is_optimal(world, policy, [0.0, 0.0, 1e-3], tolerance=1.1e-3)
    assert not is_optimal(world, policy, [0.0, 0.0, 1e-3], tolerance=0.9e-3)
    assert is_optimal(world, policy, [0.0, 1e3, 1e3 + 1e-6])  # beside values of 2000


def test_with_one_action_there_is_nothing_to_beat():
    """No margin anywhere; without a price on rewards the objective is 0."""
    moves = np.zeros((2, 1, 2))
    moves[0, 0, 1] = moves[1, 0, 0] = 1.0
    found = ng_russell(TabularMDP.create(moves, np.zeros((2, 1)), discount=0.5), np.ones((2, 1)))
    assert found.margins.tolist() == [0.0, 0.0] and found.objective == pytest.approx(0.0)


# --- the program ----------------------------------------------------------------------------------


def dense_program(mdp, policy, l1, max_reward=1.0):
    """Objective of the program of the paper, with the inverse written out, by another solver."""
    G = optimality_constraints(mdp, policy)
    n, m = mdp.n_states, mdp.n_actions
    which = np.repeat(np.arange(n), m - 1)
    pick = np.eye(n)[which]
    zero = np.zeros_like(pick)
    upper = np.block(
        [
            [-G, zero, zero],
            [-G, pick, zero],
            [np.eye(n), np.zeros((n, n)), -np.eye(n)],
            [-np.eye(n), np.zeros((n, n)), -np.eye(n)],
        ]
    )
    bounds = [(-max_reward, max_reward)] * n + [(0, None)] * (2 * n)
    cost = np.concatenate([np.zeros(n), -np.ones(n), np.full(n, l1)])
    return -linprog(
        cost, A_ub=upper, b_ub=np.zeros(len(upper)), bounds=bounds, method="highs-ipm"
    ).fun


@pytest.mark.parametrize("l1", [0.0, 0.4, 2.0])
def test_sparse_and_dense_programs_agree(corner, rng, l1):
    world, _, policy = corner
    assert ng_russell(world, policy, l1=l1).objective == pytest.approx(
        dense_program(world, policy, l1), rel=1e-6, abs=1e-8
    )
    mdp = garnet(7, 3, 3, rng, discount=0.7)
    policy = deterministic(rng, 7, 3)
    assert ng_russell(mdp, policy, l1=l1).objective == pytest.approx(
        dense_program(mdp, policy, l1), rel=1e-6, abs=1e-8
    )


def test_the_answer_keeps_its_promises(corner):
    world, _, policy = corner
    result = ng_russell(world, policy, l1=0.5, max_reward=2.0)
    assert is_optimal(world, policy, result.reward)
    assert np.abs(result.reward).max() <= 2.0 + 1e-9
    mine = world.with_reward(result.reward)
    np.testing.assert_allclose(result.values, planning.evaluate_policy(mine, policy), atol=1e-7)
    q = planning.q_values(mine, result.values)
    best = q[policy == 1]
    second = np.where(policy == 1, -np.inf, q).max(axis=1)
    np.testing.assert_allclose(result.margins, (best - second) / world.discount, atol=1e-7)
    assert result.objective == pytest.approx(
        result.margins.sum() - 0.5 * np.abs(result.reward).sum(), abs=1e-7
    )


def test_enough_sparsity_gives_zero_and_a_little_less_gives_the_corner(corner):
    world, reward, policy = corner
    assert not ng_russell(world, policy, l1=50.0).reward.any()
    found = ng_russell(world, policy, l1=4.0).reward
    np.testing.assert_allclose(found, reward, atol=1e-7)


def test_renumbering_renumbers_the_reward(corner, rng):
    world, _, policy = corner
    states, actions = rng.permutation(25), rng.permutation(4)
    found = ng_russell(world.permute(states, actions), policy[np.ix_(states, actions)], l1=4.0)
    np.testing.assert_allclose(
        found.reward, ng_russell(world, policy, l1=4.0).reward[states], atol=1e-7
    )


def test_terminal_states_collect_nothing():
    world = gridworld(3, 3, slip=0.1, goals={(2, 2): 1.0}, stay=False, discount=0.9)
    best = planning.policy_iteration(world).policy
    policy = np.eye(4)[best.argmax(axis=1)]
    found = ng_russell(world, policy, l1=0.1)
    assert found.reward[8] == 0.0 and found.margins[8] == 0.0
    assert is_optimal(world, policy, found.reward)
    assert (optimality_constraints(world, policy)[:, 8] == 0.0).all()


def test_no_such_reward_but_zero():
    """Two actions that do the same leave no margin anywhere: the program says 0 and no more."""
    same = np.zeros((2, 2, 2))
    same[0, :, 1] = same[1, :, 0] = 1.0
    world = TabularMDP.create(same, np.zeros(2), discount=0.5)
    result = ng_russell(world, np.eye(2), l1=0.1)
    assert not result.reward.any() and result.objective == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize(
    "setting", [{"l1": -1e-9}, {"l1": np.inf}, {"max_reward": 0.0}, {"max_reward": np.inf}]
)
def test_bad_settings_are_named(corner, setting):
    with pytest.raises(errors.InvalidHyperparameterError, match=next(iter(setting))):
        ng_russell(corner[0], corner[2], **setting)


# --- shaping --------------------------------------------------------------------------------------


@pytest.fixture
def ending(rng):
    """A random world with one terminal state."""
    dense = rng.dirichlet(np.full(6, 0.5), size=(6, 3))
    reward = rng.normal(size=(6, 3))
    reward[5] = 0.0
    return TabularMDP.create(dense, reward, start=0, discount=0.9, terminal=[5])


def test_shaping_shifts_all_values_and_moves_no_choice(ending, rng):
    phi = 5 * rng.normal(size=6)
    phi[5] = 0.0
    before, after = (
        planning.policy_iteration(ending),
        planning.policy_iteration(shaped(ending, phi)),
    )
    np.testing.assert_allclose(after.values, before.values - phi, atol=1e-9)
    np.testing.assert_allclose(after.q[:5], before.q[:5] - phi[:5, None], atol=1e-9)
    np.testing.assert_array_equal(after.policy, before.policy)
    policy = rng.dirichlet(np.ones(3), size=6)
    shifted = planning.evaluate_policy(shaped(ending, phi), policy)
    np.testing.assert_allclose(shifted, planning.evaluate_policy(ending, policy) - phi, atol=1e-9)
    soft, soft_shaped = (planning.soft_policy_iteration(m) for m in (ending, shaped(ending, phi)))
    np.testing.assert_allclose(soft_shaped.policy[:5], soft.policy[:5], atol=1e-8)


def test_potential_of_a_terminal_state_must_be_zero(ending):
    with pytest.raises(errors.TerminalPotentialError, match="terminal state 5"):
        potential_shaping(ending, np.ones(6))
    with pytest.raises(errors.ShapeError):
        potential_shaping(ending, np.zeros(4))
    with pytest.raises(errors.NotFiniteError):
        potential_shaping(ending, np.array([np.nan, 0, 0, 0, 0, 0]))


def test_planted_terminal_potential_changes_the_best_policy():
    """What the error prevents: a potential left on the end pays for ending early."""
    P = np.zeros((3, 2, 3))  # 0: stay and earn 1, or end; 1 ends at once; 2 is the end
    P[0, 0, 0] = P[0, 1, 2] = P[1, :, 2] = 1.0
    world = TabularMDP.create(P, np.array([[1.0, 0.0], [0, 0], [0, 0]]), discount=0.9, terminal=[2])
    phi = np.array([0.0, 0.0, 100.0])
    bug = world.reward + (0.9 * P @ phi) - phi[:, None]
    bug[2] = 0.0
    before, after = (
        planning.policy_iteration(world),
        planning.policy_iteration(world.with_reward(bug)),
    )
    assert before.policy[0, 0] == 1.0 and after.policy[0, 1] == 1.0


def test_shaping_by_the_values_makes_the_greedy_step_optimal(ending):
    plan = planning.policy_iteration(ending)
    advantage = shaped(ending, plan.values).reward  # r + gamma E V - V
    np.testing.assert_allclose(
        advantage, np.where(ending.terminal[:, None], 0, plan.q - plan.values[:, None]), atol=1e-9
    )
