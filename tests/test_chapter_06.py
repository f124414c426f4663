"""Every displayed equation of chapter 6 that has code, against an independent computation.

Small worlds, brute force where it is possible: all paths are listed, entropies are summed.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.optimize import linprog

from irlbook import planning
from irlbook.envs.gridworld import gridworld
from irlbook.errors import DivergentPartitionError, UnreachableFeaturesError
from irlbook.irl.maxent import causal_dual, causal_hessian, fit_max_causal_ent, log_likelihood
from irlbook.irl.maxent_paths import fit_max_ent_paths, path_dual
from irlbook.lm.enumerable import EnumerableLM
from irlbook.mdp import TabularMDP, Trajectories, sample_trajectories
from irlbook.metrics import entropy, expected_value_difference, kl_divergence

T = 4


def every_path(mdp: TabularMDP, start: int, horizon: int) -> tuple[np.ndarray, np.ndarray]:
    """States (n, T+1) and actions (n, T) of all action sequences of a deterministic world."""
    successor = mdp.dense().argmax(axis=2)
    actions = np.array(list(itertools.product(range(mdp.n_actions), repeat=horizon)))
    states = np.full((len(actions), horizon + 1), start)
    for t in range(horizon):
        states[:, t + 1] = successor[states[:, t], actions[:, t]]
    return states, actions


@pytest.fixture
def world() -> tuple[TabularMDP, np.ndarray, np.ndarray, np.ndarray]:
    """A deterministic grid, features (S, K), phi of all paths (n, K), and weights."""
    mdp = gridworld(3, 3, goals={}, stay=False, start=(0, 0), discount=1.0)
    features = np.random.default_rng(0).normal(size=(9, 3))
    states, _ = every_path(mdp, 0, T)
    return mdp, features, features[states[:, :-1]].sum(axis=1), np.array([0.7, -0.4, 0.2])


@pytest.fixture
def noisy() -> tuple[TabularMDP, np.ndarray]:
    mdp = gridworld(3, 4, walls=[(1, 1)], goals={}, slip=0.3, discount=0.9)
    features = np.random.default_rng(1).normal(size=(12, 3))
    features[mdp.terminal] = 0.0  # nobody acts on the wall
    return mdp, features


def boltzmann(path_features: np.ndarray, weights: np.ndarray) -> np.ndarray:
    score = np.exp(path_features @ weights)
    return score / score.sum()


def differences(f, w: np.ndarray, step: float = 1e-5) -> np.ndarray:
    return np.array([(f(w + step * e) - f(w - step * e)) / (2 * step) for e in np.eye(len(w))])


def test_eq_6_1_feature_expectations_add_discounted_features_along_paths():
    features = np.random.default_rng(2).normal(size=(4, 2))
    paths = [([0, 1, 2], [0, 1]), ([3, 3, 1, 0], [1, 1, 0])]
    by_hand = np.mean(
        [sum(0.8**t * features[s] for t, s in enumerate(states[:-1])) for states, _ in paths],
        axis=0,
    )
    found = Trajectories.from_list(paths).feature_expectations(features, 2, 0.8)
    np.testing.assert_allclose(found, by_hand, atol=1e-14)


def test_eq_6_2_to_6_4_the_fit_is_the_entropy_maximum_among_matching_distributions(world):
    mdp, features, path_features, w = world
    mu = boltzmann(path_features, w) @ path_features
    p = boltzmann(path_features, fit_max_ent_paths(mdp, features, mu, horizon=T).weights)
    np.testing.assert_allclose(p @ path_features, mu, atol=1e-5)
    rng = np.random.default_rng(3)
    rows = np.vstack([path_features.T, np.ones(len(p))])
    for _ in range(3):
        push = rng.normal(size=len(p))
        other = linprog(push, A_eq=rows, b_eq=np.append(mu, 1.0), bounds=(0, None)).x
        assert entropy(p) > entropy(other)
        lost = entropy(p) - entropy(other)
        np.testing.assert_allclose(lost, kl_divergence(other, p), atol=1e-4)


def test_eq_6_5_and_6_6_the_partition_function_is_the_soft_value(world):
    mdp, features, path_features, w = world
    states, actions = every_path(mdp, 0, T)
    plan = planning.soft_backward_induction(mdp.with_reward(features @ w), T)
    log_z = np.log(np.exp(path_features @ w).sum())
    assert plan.values[0, 0] == pytest.approx(log_z, abs=1e-12)
    played = np.prod([plan.policy[t, states[:, t], actions[:, t]] for t in range(T)], axis=0)
    np.testing.assert_allclose(played, boltzmann(path_features, w), atol=1e-14)


@pytest.mark.parametrize("beta", [0.5, 2.0])
def test_eq_6_7_the_dual_is_minus_beta_times_the_log_likelihood(world, beta):
    mdp, features, path_features, w = world
    states, actions = every_path(mdp, 0, T)
    chosen = np.random.default_rng(4).choice(len(states), size=20)
    seen = Trajectories.from_list([(states[i], actions[i]) for i in chosen])
    mu = seen.feature_expectations(features, mdp.n_actions)
    value, _ = causal_dual(w, mdp, features, mu, horizon=T, beta=beta)
    likelihood = np.log(boltzmann(path_features, w / beta))[chosen].mean()
    assert value == pytest.approx(-beta * likelihood, abs=1e-10)
    plan = planning.soft_backward_induction(mdp.with_reward(features @ w), T, beta=beta)
    assert log_likelihood(plan.log_policy, seen) == pytest.approx(likelihood, abs=1e-10)


@pytest.mark.parametrize("horizon", [None, 7])
def test_eq_6_8_the_gradient_is_model_minus_expert(noisy, horizon):
    mdp, features = noisy
    w, mu = np.array([0.5, -1.0, 0.2]), np.array([1.0, 0.0, -1.0])

    def dual(v):
        return causal_dual(v, mdp, features, mu, horizon=horizon, beta=0.7)

    np.testing.assert_allclose(dual(w)[1], differences(lambda v: dual(v)[0], w), atol=1e-7)


def test_eq_6_9_the_hessian_is_the_covariance_of_path_features(world):
    mdp, features, path_features, w = world
    for beta in (1.0, 0.4):
        p = boltzmann(path_features, w / beta)
        centred = path_features - p @ path_features
        np.testing.assert_allclose(
            causal_hessian(w, mdp, features, horizon=T, beta=beta),
            centred.T @ (p[:, None] * centred) / beta,
            atol=1e-12,
        )


def test_eq_6_10_three_equal_routes_and_label_bias():
    P = np.zeros((4, 2, 4))
    P[0, 0, 3] = P[0, 1, 1] = 1.0
    P[1, :, 2] = P[2, :, 2] = P[3, :, 2] = 1.0
    allowed = np.array([[1, 1], [1, 1], [1, 1], [1, 0]], dtype=float)
    mdp = TabularMDP.create(
        P, np.array([-1.0, -1.0, 0.0, -1.0]), start=0, discount=1.0, terminal=[2]
    )
    soft = planning.soft_policy_iteration(mdp, reference=allowed).policy
    routes = [soft[0, 0] * soft[3, 0], soft[0, 1] * soft[1, 0], soft[0, 1] * soft[1, 1]]
    np.testing.assert_allclose(routes, 1 / 3, atol=1e-12)
    q = planning.policy_iteration(mdp).q
    local = np.exp(planning.soft_log_policy(q, 1.0))
    np.testing.assert_allclose(local[0, 1] * local[1], [0.25, 0.25], atol=1e-12)


def test_eq_6_11_the_path_model_reweights_outcomes():
    """Odds of winning in the path model: P(win) e^win against P(lose) e^lose."""
    chance, win, lose = 0.1, 4.0, -2.0
    P = np.zeros((4, 1, 4))
    P[0, 0, 1], P[0, 0, 2] = chance, 1 - chance
    P[1:3, 0, 3] = 1.0
    mdp = TabularMDP.create(P, np.zeros(4), start=0, discount=1.0, terminal=[3])
    value, mu = path_dual([0.0, win, lose, 0.0], mdp, np.eye(4), np.zeros(4))
    weights = np.array([chance * np.exp(win), (1 - chance) * np.exp(lose)])
    np.testing.assert_allclose(mu[1:3], weights / weights.sum(), atol=1e-12)
    assert value == pytest.approx(np.log(weights.sum()), abs=1e-12)


def test_eq_6_12_and_6_13_models_agree_without_noise_and_the_optimist_believes_more(world, noisy):
    mdp, features, _, w = world
    zero = np.zeros(3)
    same = [dual(w, mdp, features, zero, horizon=T) for dual in (causal_dual, path_dual)]
    assert same[0][0] == pytest.approx(same[1][0], abs=1e-12)
    np.testing.assert_allclose(same[0][1], same[1][1], atol=1e-12)
    mdp, features = noisy
    mdp = mdp.with_discount(1.0)
    causal, paths = (f(w, mdp, features, zero, horizon=T)[0] for f in (causal_dual, path_dual))
    assert paths > causal + 0.01  # Jensen


def test_eq_6_13_the_causal_fit_recovers_a_causal_expert_and_the_path_fit_does_not():
    features = np.eye(9)[:, [2, 4]]
    w = np.array([1.0, -2.0])
    ice = gridworld(3, 3, goals={}, slip=0.3, start=(0, 0), discount=1.0, state_reward=features @ w)
    policy = planning.soft_backward_induction(ice, 8).policy
    mu = planning.feature_expectations(planning.occupancy_measure(ice, policy, 8), features)
    causal = fit_max_causal_ent(ice, features, mu, horizon=8)
    paths = fit_max_ent_paths(ice, features, mu, horizon=8)
    np.testing.assert_allclose(causal.weights, w, atol=1e-5)
    assert paths.gap < 1e-6
    assert np.abs(paths.weights - w).max() > 0.1


def test_eq_6_14_likelihood_is_dual_plus_luck(noisy):
    mdp, features = noisy
    w, horizon, gamma = np.array([0.5, -0.3, 0.8]), 6, 1.0
    mdp = mdp.with_discount(gamma)
    plan = planning.soft_backward_induction(mdp.with_reward(features @ w), horizon, beta=0.6)
    seen = sample_trajectories(mdp, plan.policy, 7, horizon, np.random.default_rng(5))
    mu = seen.feature_expectations(features, mdp.n_actions)
    g, _ = causal_dual(w, mdp, features, mu, horizon=horizon, beta=0.6)
    P, luck = mdp.dense(), 0.0
    for states, actions in seen:
        for t, (s, a) in enumerate(zip(states[:-1], actions, strict=True)):
            luck += plan.values[t + 1, states[t + 1]] - P[s, a] @ plan.values[t + 1]
        luck += plan.values[0, states[0]] - mdp.start @ plan.values[0]
    expected = g + luck / len(seen)
    assert -0.6 * log_likelihood(plan.log_policy, seen) == pytest.approx(expected, abs=1e-9)


def test_eq_6_15_the_sum_over_all_lengths_is_the_geometric_series():
    P = np.zeros((2, 2, 2))
    P[0, 0, 0] = P[0, 1, 1] = 1.0
    mdp = TabularMDP.create(P, np.zeros((2, 2)), start=0, discount=1.0, terminal=[1])
    loops = np.zeros((2, 2, 1))
    loops[0, 0] = 1.0
    for cost in (2.0, 0.5, 0.01):
        value, count = path_dual([-cost], mdp, loops, [0.0])
        assert value == pytest.approx(-np.log1p(-np.exp(-cost)), abs=1e-9)
        assert count[0] == pytest.approx(1 / np.expm1(cost), rel=1e-9)
    with pytest.raises(DivergentPartitionError, match="diverges"):
        path_dual([0.0], mdp, loops, [0.0])


def test_eq_6_16_unreachable_features_come_with_a_certificate(noisy):
    mdp, features = noisy
    best = planning.backward_induction(mdp.with_reward(features[:, 0]), 6).values[0] @ mdp.start
    mu = np.array([best + 0.1, 0.0, 0.0])
    with pytest.raises(UnreachableFeaturesError, match="the best policy earns"):
        fit_max_causal_ent(mdp, features, mu, horizon=6)
    assert fit_max_causal_ent(mdp, features, mu, horizon=6, l2=0.1).report.converged


def test_eq_6_17_evd_is_zero_for_the_truth_and_positive_for_chance(noisy):
    mdp, features = noisy
    true = mdp.with_reward(np.where(mdp.terminal, 0.0, features[:, 0]))
    optimal = planning.policy_iteration(true).policy
    assert expected_value_difference(true, optimal) == pytest.approx(0.0, abs=1e-6)
    assert expected_value_difference(true, np.full((12, 5), 0.2)) > 0.1


def test_eq_6_18_shaping_keeps_the_soft_policy_here_and_not_elsewhere(noisy):
    mdp, features = noisy
    potential = np.random.default_rng(6).normal(size=12) * ~mdp.terminal
    reward = np.where(mdp.terminal, 0.0, features[:, 0])[:, None] * np.ones(5)
    expected_potential = (mdp.transitions @ potential).reshape(12, 5)
    shaped = reward + mdp.discount * expected_potential - potential[:, None]

    def policy(world: TabularMDP, r: np.ndarray) -> np.ndarray:
        plan = planning.soft_policy_iteration(world.with_reward(r), beta=0.4, tolerance=1e-12)
        return plan.policy

    np.testing.assert_allclose(policy(mdp, shaped), policy(mdp, reward), atol=1e-9)
    changed = gridworld(3, 4, walls=[(1, 1)], goals={}, slip=0.6, discount=0.9)
    assert np.abs(policy(changed, shaped) - policy(changed, reward)).max() > 0.05


def test_eq_6_19_the_soft_policy_on_a_token_tree_is_the_rlhf_optimum():
    rng = np.random.default_rng(7)
    lm = EnumerableLM.create(["a", "b", "."], 3, lambda p: rng.dirichlet(np.ones(3), size=len(p)))
    reward = rng.normal(size=len(lm.responses))
    plan = planning.soft_policy_iteration(lm.mdp(reward), beta=0.5, reference=lm.policy)
    want = np.exp(lm.sequence_log_probabilities() + reward / 0.5)
    found = np.exp(lm.sequence_log_probabilities(plan.policy))
    np.testing.assert_allclose(found, want / want.sum(), atol=1e-10)
