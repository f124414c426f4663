"""Chapter 4: each displayed equation that has code, against the library."""

import numpy as np
import pytest

from irlbook import planning
from irlbook.envs import cloning_chain, garnet
from irlbook.envs.road import road
from irlbook.imitation.behavior_cloning import (
    absorbing_cost,
    clone,
    label_counts,
    log_loss,
    mistakes,
    noisy_demonstrations,
    trajectory_kl,
)
from irlbook.imitation.dagger import (
    DaggerConfig,
    dagger,
    performance_difference,
    recovery,
)
from irlbook.mdp import sample_trajectories


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def pair(rng):
    """A random world, a random expert and a random learner."""
    mdp = garnet(6, 3, 2, rng, discount=1.0)
    return mdp, rng.dirichlet(np.ones(3), size=6), rng.dirichlet(np.ones(3), size=6)


def test_eq_4_1_the_loss_is_the_mean_negative_log_probability(pair, rng):
    mdp, expert, policy = pair
    seen = sample_trajectories(mdp, expert, 20, 5, rng)
    counts = label_counts(seen.acting_states, seen.actions, 6, 3)
    direct = -np.mean(
        [np.log(policy[s, a]) for s, a in zip(seen.acting_states, seen.actions, strict=True)]
    )
    assert log_loss(policy, counts) == pytest.approx(direct, abs=1e-12)


def test_eq_4_2_counting_is_where_the_gradient_vanishes(rng):
    """d/dlogit of (4.1) through a softmax is n(s,.) - n(s) pi(.|s), zero at the counts."""
    counts = rng.integers(1, 9, size=(4, 3)).astype(float)
    policy = clone(counts)
    np.testing.assert_allclose(counts - counts.sum(1, keepdims=True) * policy, 0.0, atol=1e-12)


def test_eq_4_3_kl_of_trajectories_is_the_cloning_loss_up_to_a_constant(pair):
    mdp, expert, policy = pair
    other, horizon = np.roll(policy, 1, axis=0), 7
    visits = planning.occupancy_measure(mdp, expert, horizon)  # (S, A): infinitely many labels
    losses = [horizon * log_loss(p, visits) for p in (policy, other)]
    kls = [trajectory_kl(mdp, expert, p, horizon) for p in (policy, other)]
    assert losses[0] - losses[1] == pytest.approx(kls[0] - kls[1], abs=1e-10)
    assert trajectory_kl(mdp, expert, expert, horizon) == pytest.approx(0.0, abs=1e-12)


def test_eq_4_4_mistakes_by_sampling(rng):
    mdp, expert = road(10, 3, rng)
    policy = 0.9 * expert + 0.1 / 3
    seen = sample_trajectories(mdp, policy, 20_000, 6, rng)
    sampled = (1.0 - expert[seen.acting_states, seen.actions]).sum() / len(seen)
    assert mistakes(mdp, policy, expert, 6) == pytest.approx(sampled, abs=0.02)
    assert mistakes(mdp, policy, expert, 6, driver=expert) == pytest.approx(6 * 0.1 * 2 / 3)


@pytest.mark.parametrize("horizon", [1, 5, 40])
def test_eq_4_5_no_policy_pays_more_than_eps_t_squared(horizon, rng):
    mdp, expert = road(10, None, rng)
    for weight in (0.001, 0.05, 0.6):
        policy = (1 - weight) * expert + weight * rng.dirichlet(np.ones(3), size=len(expert))
        eps = mistakes(mdp, policy, expert, horizon, driver=expert) / horizon
        assert -planning.expected_return(mdp, policy, horizon) <= horizon**2 * eps + 1e-9


@pytest.mark.parametrize("error", [1e-3, 0.1, 0.9])
def test_eq_4_6_cost_of_an_absorbing_error(error):
    policy = np.array([[1 - error, error], [1.0, 0.0]])
    for horizon in (1, 9, 200):
        cost = -planning.expected_return(cloning_chain(), policy, horizon)
        assert cost == pytest.approx(float(absorbing_cost(error, horizon)), rel=1e-9)
    small = float(absorbing_cost(1e-5, 100))
    assert small == pytest.approx(1e-5 * 100 * 101 / 2, rel=1e-3)


def test_eq_4_7_slope_falls_from_two_to_one():
    steps = np.array([1e4, 1e4 * 1.001])
    for x, expected in ((0.01, 2.0), (1.0, 1.72), (100.0, 1.01)):
        cost = absorbing_cost(x / 1e4, steps)
        assert np.diff(np.log(cost))[0] / np.log(1.001) == pytest.approx(expected, abs=0.02)


def test_eq_4_8_performance_difference_is_an_identity(pair):
    mdp, expert, policy = pair
    gap = planning.expected_return(mdp, expert, 9) - planning.expected_return(mdp, policy, 9)
    assert performance_difference(mdp, policy, expert, 9) == pytest.approx(gap, abs=1e-10)


@pytest.mark.parametrize("depth", [1, 5, None])
def test_eq_4_9_and_4_10_price_of_an_error_and_the_bound(depth, rng):
    mdp, expert = road(10, depth, rng)
    horizon = 20
    u = recovery(mdp, expert, horizon)
    assert u == pytest.approx(depth or horizon)
    for weight in (0.01, 0.3):
        policy = (1 - weight) * expert + weight * rng.dirichlet(np.ones(3), size=len(expert))
        own = mistakes(mdp, policy, expert, horizon)
        assert -planning.expected_return(mdp, policy, horizon) <= u * own + 1e-9


def test_slopes_of_cloning_and_dagger_differ():
    """The claim of section 4, small: five roads, two horizons."""
    costs = np.zeros((5, 2, 2))
    for seed in range(5):
        rng = np.random.default_rng(seed)
        mdp, expert = road(200, 2, rng)
        for j, horizon in enumerate((8, 64)):
            n = 2048 // horizon
            seen = sample_trajectories(mdp, expert, n, horizon, rng)
            counts = label_counts(seen.acting_states, seen.actions, mdp.n_states, 3)
            config = DaggerConfig(rounds=8, trajectories=n // 8, horizon=horizon)
            asked = dagger(
                mdp, expert, config, rng=rng, fit=lambda c: clone(c, fallback="marginal")
            )
            for k, policy in enumerate((clone(counts, fallback="marginal"), asked.policies[-1])):
                costs[seed, k, j] = -planning.expected_return(mdp, policy, horizon)
    slope = np.diff(np.log(costs.mean(axis=0)), axis=1)[:, 0] / np.log(8)
    assert 1.6 < slope[0] < 2.1 and 0.7 < slope[1] < 1.5


def test_noise_shows_the_ditch(rng):
    mdp, expert = road(10, 2, rng)
    seen, labels = noisy_demonstrations(mdp, expert, 0.1, 50, 20, rng)
    assert label_counts(seen.acting_states, labels, 12, 3)[10:, 2].min() > 0
