"""Every displayed equation of chapter 9 that has code, against an independent computation."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from irlbook import planning
from irlbook.envs.gridworld import gridworld
from irlbook.mdp import Trajectories, sample_trajectories
from irlbook.preferences.bradley_terry import (
    bradley_terry_gradient,
    bradley_terry_log_likelihood,
    fisher_information,
    fit_bradley_terry,
    sample_preferences,
)
from irlbook.preferences.classification import (
    classification_log_likelihood,
    fit_classification,
    order_consistency,
    win_probability,
)
from irlbook.preferences.trex import fit_trex, trajectory_features


def sigma(z):
    return 1 / (1 + np.exp(-z))


@pytest.fixture
def asked() -> np.ndarray:
    rng = np.random.default_rng(0)
    pairs = rng.integers(0, 6, size=(300, 2))
    return pairs[pairs[:, 0] != pairs[:, 1]]


def test_eq_9_1_and_9_2_a_pair_is_a_soft_choice_of_chapter_3():
    r, beta = np.array([0.8, -0.3]), 0.6
    _, policy = planning.soft_backup(r[None], beta)
    assert policy[0, 0] == pytest.approx(sigma((r[0] - r[1]) / beta), abs=1e-14)
    likelihood = bradley_terry_log_likelihood(r, [[0, 1]], beta=beta)
    assert likelihood == pytest.approx(np.log(policy[0, 0]), abs=1e-14)


def test_eq_9_3_gumbel_errors_make_a_soft_choice():
    rng, r, beta = np.random.default_rng(1), np.array([0.5, 0.0, -1.0]), 0.8
    chosen = (r + beta * rng.gumbel(size=(100_000, 3))).argmax(axis=1)
    _, policy = planning.soft_backup(r[None], beta)
    np.testing.assert_allclose(np.bincount(chosen) / 100_000, policy[0], atol=0.006)


def test_eq_9_4_is_the_probability_of_all_answers_and_not_positive(asked):
    r, beta = np.random.default_rng(2).normal(size=6), 0.7
    by_hand = sum(np.log(sigma((r[i] - r[j]) / beta)) for i, j in asked)
    assert bradley_terry_log_likelihood(r, asked, beta=beta) == pytest.approx(by_hand)
    assert by_hand < 0
    # a probability: over all answers to five questions it sums to one
    few = asked[:5]
    total = sum(
        np.exp(bradley_terry_log_likelihood(r, np.where(np.array(t)[:, None], few, few[:, ::-1])))
        for t in itertools.product([False, True], repeat=5)
    )
    assert total == pytest.approx(1.0)


def test_eq_9_4_the_sign_more_wins_more_reward():
    """The loss is minus (9.4): its gradient pushes the winner up."""
    gradient = bradley_terry_gradient(np.zeros(2), [[0, 1]])
    assert gradient[0] == pytest.approx(0.5) and gradient[1] == pytest.approx(-0.5)
    r = np.array([1.0, -1.0])
    better, worse = (bradley_terry_log_likelihood(x, [[0, 1]]) for x in (r, -r))
    assert better > worse


def test_eq_9_5_wins_seen_less_wins_expected(asked):
    r, beta = np.random.default_rng(3).normal(size=6), 1.3
    expected = np.zeros(6)
    for i, j in asked:
        expected[i] += sigma((r[i] - r[j]) / beta)
        expected[j] += sigma((r[j] - r[i]) / beta)
    wins = np.bincount(asked[:, 0], minlength=6)
    np.testing.assert_allclose(
        bradley_terry_gradient(r, asked, beta=beta), (wins - expected) / beta, atol=1e-12
    )


def test_eq_9_6_each_step_raises_the_likelihood_and_ends_at_newtons_answer(asked):
    r = np.random.default_rng(4).normal(size=6) * 0.5
    pairs = sample_preferences(r, asked, np.random.default_rng(5))
    s, values = np.ones(6), []
    for _ in range(400):
        values.append(bradley_terry_log_likelihood(np.log(s), pairs))
        s = np.array(
            [
                (pairs[:, 0] == i).sum() / sum(1 / (s[a] + s[b]) for a, b in pairs if i in (a, b))
                for i in range(6)
            ]
        )
    assert (np.diff(values) > -1e-10).all()
    np.testing.assert_allclose(
        np.log(s) - np.log(s).mean(), fit_bradley_terry(pairs).rewards, atol=1e-7
    )


def test_eq_9_7_constants_of_a_prompt_and_units_are_invisible():
    rng = np.random.default_rng(6)
    prompts = np.repeat(np.arange(4), 3)
    r, c = rng.normal(size=12), 10 * rng.normal(size=4)
    pairs = np.array([(3 * x + i, 3 * x + j) for x in range(4) for i, j in ((0, 1), (2, 0))])
    plain = bradley_terry_log_likelihood(r, pairs)
    assert bradley_terry_log_likelihood(r + c[prompts], pairs) == pytest.approx(plain)
    assert bradley_terry_log_likelihood(5 * r, pairs, beta=5.0) == pytest.approx(plain)
    across = np.vstack([pairs, [[0, 11]]])
    moved = bradley_terry_log_likelihood(r + c[prompts], across)
    assert moved != pytest.approx(bradley_terry_log_likelihood(r, across))


def test_eq_9_8_information_is_minus_the_hessian_and_the_variance_of_the_score(asked):
    r, beta = np.random.default_rng(7).normal(size=6), 0.9
    step = 1e-5 * np.eye(6)
    hessian = [
        (
            bradley_terry_gradient(r + h, asked, beta=beta)
            - bradley_terry_gradient(r - h, asked, beta=beta)
        )
        / 2e-5
        for h in step
    ]
    information = fisher_information(r, asked, beta=beta)
    np.testing.assert_allclose(information, -np.array(hessian), atol=1e-6)
    np.testing.assert_allclose(information @ np.ones(6), 0, atol=1e-12)
    # over all answers to four questions the score has mean 0 and this variance
    few, mean, square = asked[:4], np.zeros(6), np.zeros((6, 6))
    for t in itertools.product([False, True], repeat=4):
        pairs = np.where(np.array(t)[:, None], few, few[:, ::-1])
        chance = np.exp(bradley_terry_log_likelihood(r, pairs, beta=beta))
        score = bradley_terry_gradient(r, pairs, beta=beta)
        mean, square = mean + chance * score, square + chance * np.outer(score, score)
    np.testing.assert_allclose(mean, 0, atol=1e-12)
    np.testing.assert_allclose(square, fisher_information(r, few, beta=beta), atol=1e-12)


def test_eq_9_9_the_interval_is_the_resistance_between_two_items(asked):
    pairs = sample_preferences(np.zeros(6), asked, np.random.default_rng(8))
    fit = fit_bradley_terry(pairs)
    c = np.eye(6)[1] - np.eye(6)[4]
    resistance = c @ np.linalg.pinv(fisher_information(fit.rewards, pairs)) @ c
    low, high = fit.difference_interval(1, 4)
    assert (high - low) / 2 == pytest.approx(1.959963985 * np.sqrt(resistance))
    assert (high + low) / 2 == pytest.approx(fit.rewards[1] - fit.rewards[4])


def test_eq_9_10_regression_is_estimation_through_the_features(asked):
    rng = np.random.default_rng(9)
    phi, w = rng.normal(size=(6, 3)), rng.normal(size=3)
    assert bradley_terry_log_likelihood(w, asked, phi) == pytest.approx(
        bradley_terry_log_likelihood(phi @ w, asked)
    )
    np.testing.assert_allclose(
        bradley_terry_gradient(w, asked, phi), phi.T @ bradley_terry_gradient(phi @ w, asked)
    )
    np.testing.assert_allclose(
        fisher_information(w, asked, phi), phi.T @ fisher_information(phi @ w, asked) @ phi
    )


def test_eq_9_10_the_survey_prints_a_zero_difference(asked):
    phi = np.random.default_rng(10).normal(size=(6, 2))
    as_printed = np.column_stack([asked[:, 0], asked[:, 0]])
    assert not fisher_information(np.ones(2), as_printed, phi).any()
    assert np.linalg.eigvalsh(fisher_information(np.ones(2), asked, phi)).min() > 1


def test_eq_9_11_items_are_trajectories_and_rewards_are_returns():
    mdp = gridworld(3, 3, goals={}, discount=0.9)
    rng = np.random.default_rng(11)
    phi, w = rng.normal(size=(9, 2)), np.array([0.7, -0.4])
    seen = sample_trajectories(mdp, np.full((9, 5), 0.2), 2, 6, rng)
    a, b = (sum(0.9**t * (phi @ w)[s] for t, s in enumerate(x[:-1])) for x, _ in seen)
    found = bradley_terry_log_likelihood(w, [[0, 1]], trajectory_features(seen, phi, 0.9))
    assert np.exp(found) == pytest.approx(sigma(a - b))


def test_eq_9_12_a_reward_a_step_is_seen_only_at_unequal_lengths():
    phi = np.column_stack([np.arange(4.0), np.ones(4)])
    equal = Trajectories.from_list([([0, 1, 2], [0, 0]), ([3, 2, 1], [0, 0])])
    longer = Trajectories.from_list([([0, 1, 2, 2], [0, 0, 0]), ([3, 2, 1], [0, 0])])
    w, shifted = np.array([0.3, 0.0]), np.array([0.3, 2.0])
    for seen, moved in ((equal, 0.0), (longer, 2.0)):
        gap = trajectory_features(seen, phi) @ (shifted - w)
        assert gap[0] - gap[1] == pytest.approx(moved)


def test_eq_9_13_a_classifier_is_bradley_terry_against_nobody(asked):
    r = np.random.default_rng(12).normal(size=6)
    with_nobody = np.append(r, 0.0)  # item 6 has the reward 0
    duels = np.concatenate([[(i, 6), (6, j)] for i, j in asked])
    assert classification_log_likelihood(r, asked) == pytest.approx(
        bradley_terry_log_likelihood(with_nobody, duels)
    )


def test_eq_9_14_the_classification_loss_bounds_that_of_bradley_terry(asked):
    rng = np.random.default_rng(15)
    for scale in (0.01, 1.0, 30.0):
        r = scale * rng.normal(size=6)
        for pair in asked:
            single = classification_log_likelihood(r, pair[None])
            assert -bradley_terry_log_likelihood(r, pair[None]) <= -single + 1e-12


def test_eq_9_15_endless_data_give_the_logit_of_the_mean():
    """The expected log-likelihood of one item's reward is stationary there."""
    r, q = np.array([0.5, -0.2, 1.0]), np.array([0.2, 0.5, 0.3])
    share = win_probability(r, q)
    x = np.log(share / (1 - share))
    np.testing.assert_allclose(share * (1 - sigma(x)) - (1 - share) * sigma(x), 0, atol=1e-15)
    assert order_consistency(x, r) == 1.0
    rng = np.random.default_rng(13)
    pairs = np.array([(i, j) for i in range(3) for j in range(3) if i != j] * 5000)
    found = fit_classification(sample_preferences(r, pairs, rng), np.eye(3)[:, 1:]).rewards
    others = win_probability(r, (1 - np.eye(3)) / 2)
    np.testing.assert_allclose(found, np.log(others / (1 - others)), atol=0.06)


def test_eq_9_16_the_floor_of_jensen():
    rng = np.random.default_rng(14)
    for _ in range(100):
        r, q, beta = 2 * rng.normal(size=5), rng.dirichlet(np.ones(5)), rng.uniform(0.3, 2)
        share = win_probability(r, q, beta)
        floor = r / beta - np.log(q @ np.exp(r / beta))
        assert (np.log(share / (1 - share)) >= floor - 1e-9).all()
    point = win_probability(np.array([0.4, -1.0]), np.array([0.0, 1.0]))
    np.testing.assert_allclose(np.log(point / (1 - point)), [1.4, 0.0])  # one opponent: equality


@pytest.mark.parametrize("seed", range(5))
def test_trex_plans_better_than_the_best_demonstration(seed):
    """Careless demonstrators who like what is bad; only their ranking tells."""
    rng = np.random.default_rng(seed)
    phi = np.eye(3)[rng.choice(3, size=36, p=[0.6, 0.25, 0.15])]  # plain, lure, good
    w = np.array([0.0, -1.0, 1.0])
    mdp = gridworld(6, 6, goals={}, slip=0.1, state_reward=phi @ w, discount=1.0)
    walks = []
    for heat in rng.uniform(0.5, 3.0, size=10):
        wants = mdp.with_reward(phi @ [0.0, 0.5, 0.3])
        policy = planning.soft_backward_induction(wants, 20, beta=heat).policy
        walks += list(sample_trajectories(mdp, policy, 1, 20, rng))
    walks = Trajectories.from_list(walks)
    returns = trajectory_features(walks, phi) @ w
    fit = fit_trex(walks, returns, phi)
    plan = planning.backward_induction(mdp.with_reward(fit.reward), 20)
    assert planning.expected_return(mdp, plan.policy, 20) > returns.max()
    assert fit.weights[1] < fit.weights[0] < fit.weights[2]
