"""Behaviour cloning and DAgger: each law against an exact oracle, each silent bug planted."""

import itertools

import numpy as np
import pytest

from irlbook import errors, planning
from irlbook.envs import cloning_chain, garnet
from irlbook.envs.road import road
from irlbook.imitation.behavior_cloning import (
    absorbing_cost,
    behavior_cloning,
    clone,
    label_counts,
    log_loss,
    mistakes,
    noisy_demonstrations,
    state_marginals,
    trajectory_kl,
)
from irlbook.imitation.dagger import (
    DaggerConfig,
    dagger,
    performance_difference,
    recovery,
    values_to_go,
)
from irlbook.mdp import TabularMDP, Trajectories, sample_trajectories


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def soft(rng, n_states, n_actions):
    return rng.dirichlet(np.ones(n_actions), size=n_states)


def marginal(counts):
    return clone(counts, fallback="marginal")


# --- cloning --------------------------------------------------------------------------------------


def test_the_clone_is_the_maximum_of_the_likelihood(rng):
    counts = rng.integers(0, 6, size=(5, 3)).astype(float)
    counts[0] = 0.0
    best = clone(counts)
    np.testing.assert_allclose(best[0], 1 / 3)
    for _ in range(200):
        assert log_loss(soft(rng, 5, 3), counts) >= log_loss(best, counts)


def test_smoothing_and_fallback(rng):
    counts = np.array([[3.0, 1.0], [0.0, 0.0]])
    np.testing.assert_allclose(clone(counts, smoothing=1.0), [[4 / 6, 2 / 6], [0.5, 0.5]])
    np.testing.assert_allclose(clone(counts, fallback="marginal")[1], [0.75, 0.25])
    np.testing.assert_allclose(clone(counts, fallback=[0.1, 0.9])[1], [0.1, 0.9])
    with pytest.raises(errors.InvalidHyperparameterError, match="fallback"):
        clone(counts, fallback=[0.5, 0.6])
    with pytest.raises(errors.InvalidHyperparameterError, match="smoothing"):
        clone(counts, smoothing=-1.0)
    for bad in (np.zeros((2, 2)), -counts, counts * np.nan, counts[0]):
        with pytest.raises(errors.InvalidTrajectoryError):
            clone(bad)


def test_cloning_finds_the_expert_as_demonstrations_grow(rng):
    mdp = garnet(6, 3, 2, rng, discount=0.9)
    expert = soft(rng, 6, 3)
    errors_ = [
        np.abs(behavior_cloning(sample_trajectories(mdp, expert, n, 20, rng), mdp) - expert).max()
        for n in (20, 2000)
    ]
    assert errors_[1] < 0.05 < errors_[0]


def test_renumbering_states_and_actions_renumbers_the_clone(rng):
    mdp = garnet(6, 3, 2, rng, discount=0.9)
    seen = sample_trajectories(mdp, soft(rng, 6, 3), 30, 10, rng)
    states, actions = rng.permutation(6), rng.permutation(3)
    new = Trajectories(
        np.argsort(states)[seen.states], np.argsort(actions)[seen.actions], seen.lengths
    )
    np.testing.assert_allclose(
        behavior_cloning(new, mdp.permute(states, actions), fallback="marginal"),
        behavior_cloning(seen, mdp, fallback="marginal")[np.ix_(states, actions)],
    )


def test_bad_demonstrations_are_named():
    mdp = cloning_chain()
    good = Trajectories.from_list([([0, 0, 1], [0, 1]), ([0, 1, 1, 1], [1, 0, 1])])
    assert behavior_cloning(good, mdp).shape == (2, 2)  # mixed lengths are fine
    with pytest.raises(errors.InvalidTrajectoryError, match="trajectory 1 is empty"):
        Trajectories.from_list([([0, 0], [0]), ([0], [])])
    built = Trajectories(np.array([0, 0, 0]), np.array([0]), np.array([1, 0]))  # past from_list
    with pytest.raises(errors.InvalidTrajectoryError, match="trajectory 1 is empty"):
        behavior_cloning(built, mdp)
    cases = {
        "trajectory 1, step 2: state 7 is outside": [([0, 0], [0]), ([0, 0, 7], [0, 0])],
        "trajectory 0, step 1: action 2 is outside": [([0, 0, 0], [0, 2])],
        "trajectory 0, step 1: state 1, action 0 cannot lead to state 0": [([0, 1, 0], [1, 0])],
    }
    for message, pairs in cases.items():
        with pytest.raises(errors.InvalidTrajectoryError, match=message):
            behavior_cloning(Trajectories.from_list(pairs), mdp)


def test_labels_are_checked_by_row():
    with pytest.raises(errors.InvalidTrajectoryError, match="one label a state"):
        label_counts([0, 1, 1], [0, 1], 2, 2)
    with pytest.raises(errors.InvalidTrajectoryError, match="row 1: label 2"):
        label_counts([0, 1], [0, 2], 2, 2)
    with pytest.raises(errors.InvalidTrajectoryError, match="row 0: state -1"):
        label_counts([-1, 1], [0, 1], 2, 2)
    np.testing.assert_array_equal(label_counts([0, 0, 1], [1, 1, 0], 2, 2), [[0, 2], [1, 0]])


def test_actions_shifted_by_one_are_caught_by_the_loss(rng):
    """Planted: states[1:] paired with actions. Shapes fit, training runs; the loss tells."""
    mdp, expert = road(20, 2, rng)
    seen = sample_trajectories(mdp, expert, 50, 20, rng)
    right = label_counts(seen.acting_states, seen.actions, mdp.n_states, 3)
    after = np.concatenate([s[1:] for s, _ in seen])
    shifted = label_counts(after, seen.actions, mdp.n_states, 3)
    assert log_loss(clone(right), right) == 0.0
    assert log_loss(clone(shifted), shifted) > 0.3


# --- laws -----------------------------------------------------------------------------------------


def enumerate_paths(mdp, policy, horizon):
    """{(s0, a0, s1, ...): probability} for a small world."""
    paths = {(s,): p for s, p in enumerate(mdp.start) if p > 0}
    dense = mdp.dense()
    for _ in range(horizon):
        paths = {
            (*path, a, s): p * policy[path[-1], a] * dense[path[-1], a, s]
            for path, p in paths.items()
            for a, s in itertools.product(range(mdp.n_actions), range(mdp.n_states))
            if policy[path[-1], a] * dense[path[-1], a, s] > 0
        }
    return paths


def test_marginals_kl_and_mistakes_by_enumeration(rng):
    mdp = garnet(4, 2, 2, rng, discount=0.9)
    expert, policy, horizon = soft(rng, 4, 2), soft(rng, 4, 2), 4
    under_expert, under_policy = (enumerate_paths(mdp, p, horizon) for p in (expert, policy))
    kl = sum(p * np.log(p / under_policy[path]) for path, p in under_expert.items())
    assert trajectory_kl(mdp, expert, policy, horizon) == pytest.approx(kl, abs=1e-10)

    decided = np.eye(2)[expert.argmax(axis=1)]
    wrong = lambda path: sum(  # noqa: E731
        1 - decided[path[2 * t], path[2 * t + 1]] for t in range(horizon)
    )
    expected = sum(p * wrong(path) for path, p in under_policy.items())
    assert mistakes(mdp, policy, decided, horizon) == pytest.approx(expected, abs=1e-12)
    occupancy = planning.occupancy_by_time(mdp.with_discount(1.0), policy, horizon)
    np.testing.assert_allclose(state_marginals(mdp, policy, horizon), occupancy.sum(2), atol=1e-12)


@pytest.mark.parametrize("error", [1e-12, 1e-6, 1e-3, 0.1, 0.7, 1.0, 0.0])
@pytest.mark.parametrize("horizon", [1, 2, 10, 1000])
def test_absorbing_cost_is_the_sum_over_steps(error, horizon):
    exact = sum(
        -np.expm1(t * np.log1p(-error)) if error < 1 else 1.0 for t in range(1, horizon + 1)
    )
    assert float(absorbing_cost(error, horizon)) == pytest.approx(exact, rel=1e-9)


def test_absorbing_cost_is_what_a_clone_pays(rng):
    mdp, expert = road(30, 3, rng)
    clone_ = behavior_cloning(sample_trajectories(mdp, expert, 5, 8, rng), mdp, fallback="marginal")
    error = mistakes(mdp, clone_, expert, 1, driver=expert)
    assert error > 0.01 and not clone_[:, 2].any()
    for horizon in (1, 7, 60):
        cost = -planning.expected_return(mdp, clone_, horizon)
        assert cost == pytest.approx(float(absorbing_cost(error, horizon)), abs=1e-10)
        assert cost <= horizon**2 * error  # the bound


def test_performance_difference_is_an_identity(rng):
    mdp = garnet(7, 3, 3, rng, discount=0.9)
    expert, policy = soft(rng, 7, 3), soft(rng, 7, 3)
    world = mdp.with_discount(1.0)
    gap = planning.expected_return(world, expert, 12) - planning.expected_return(world, policy, 12)
    assert performance_difference(mdp, policy, expert, 12) == pytest.approx(gap, abs=1e-10)


def test_values_to_go_are_those_of_the_planner(rng):
    mdp = garnet(7, 3, 3, rng, discount=0.9)
    policy = soft(rng, 7, 3)
    values, q = values_to_go(mdp, policy, 9)
    np.testing.assert_allclose(values, planning.evaluate_policy(mdp, policy, 9), atol=1e-12)
    np.testing.assert_allclose((policy * q).sum(2), values[:-1], atol=1e-12)


@pytest.mark.parametrize("depth", [1, 3, 6])
def test_recovery_is_the_depth_of_the_ditch(depth, rng):
    mdp, expert = road(5, depth, rng)
    assert recovery(mdp, expert, 20) == pytest.approx(depth)
    assert recovery(*road(5, None, rng), 20) == pytest.approx(20)


def test_the_bound_with_u_holds_and_without_u_fails(rng):
    """J <= J* + u (mistakes on the learner's own states); and u cannot be left out."""
    for depth in (1, 4, None):
        mdp, expert = road(12, depth, rng)
        policy = 0.97 * expert + 0.01
        own = mistakes(mdp, policy, expert, 30)
        cost = -planning.expected_return(mdp, policy, 30)
        assert cost <= recovery(mdp, expert, 30) * own + 1e-9
        if depth is None:
            assert cost > 2 * own


# --- the road -------------------------------------------------------------------------------------


def test_the_expert_stays_on_the_road(rng):
    for depth in (1, 4, None):
        mdp, expert = road(9, depth, rng)
        assert isinstance(mdp, TabularMDP)
        assert planning.expected_return(mdp, expert, 40) == pytest.approx(0.0, abs=1e-12)
        best = planning.backward_induction(mdp, 10).values
        np.testing.assert_allclose(planning.evaluate_policy(mdp, expert, 10), best, atol=1e-12)
    for bad in ({"n_bends": 0, "depth": 1}, {"n_bends": 3, "depth": 0}):
        with pytest.raises(errors.InvalidEnvironmentError):
            road(**bad, rng=rng)
    with pytest.raises(errors.InvalidEnvironmentError, match="power"):
        road(3, 1, rng, power=-1.0)


# --- noise and DAgger -----------------------------------------------------------------------------


def test_noisy_demonstrations_label_the_intention_not_the_slip(rng):
    mdp, expert = road(8, 2, rng)
    seen, labels = noisy_demonstrations(mdp, expert, 0.3, 200, 30, rng)
    assert (expert[seen.acting_states, labels] == 1.0).all()
    executed = expert[seen.acting_states, seen.actions] == 0.0
    assert 0.17 < executed.mean() < 0.23  # 0.3 * 2/3: a random step may be right
    right = label_counts(seen.acting_states, labels, mdp.n_states, 3)
    slips = label_counts(seen.acting_states, seen.actions, mdp.n_states, 3)
    visited = right.sum(axis=1) > 0
    np.testing.assert_allclose(clone(right)[visited], expert[visited])
    assert np.abs(clone(slips) - expert)[visited].max() > 0.1  # planted: executed actions


def test_noisy_demonstrations_of_a_random_expert_keep_its_odds(rng):
    mdp = garnet(3, 3, 2, rng, discount=0.9)
    expert = soft(rng, 3, 3)
    seen, labels = noisy_demonstrations(mdp, expert, 0.4, 400, 50, rng)
    counts = label_counts(seen.acting_states, labels, 3, 3)
    np.testing.assert_allclose(clone(counts), expert, atol=0.02)


def test_dagger_learns_to_climb_and_cloning_does_not(rng):
    mdp, expert = road(120, 3, rng)
    config = DaggerConfig(rounds=6, trajectories=4, horizon=25)
    result = dagger(mdp, expert, config, rng=rng, fit=marginal)
    assert result.labels.tolist() == [100 * (i + 1) for i in range(6)]
    assert result.counts.sum() == 600
    assert not result.policies[0][:, 2].any()  # round 0 is cloning: no ditch was seen
    assert result.policies[-1][120:, 2].min() > 0.99
    clone_ = behavior_cloning(
        sample_trajectories(mdp, expert, 24, 25, rng), mdp, fallback="marginal"
    )
    cost = [-planning.expected_return(mdp, p, 200) for p in (clone_, result.policies[result.best])]
    assert cost[1] < 0.2 * cost[0]


def test_dagger_that_forgets_is_caught(rng):
    """Planted: keep only the last round's labels. The own error stops falling."""
    mdp, expert = road(60, 2, rng)
    final = {}
    for aggregate in (True, False):
        config = DaggerConfig(rounds=12, trajectories=2, horizon=25, aggregate=aggregate)
        result = dagger(mdp, expert, config, rng=np.random.default_rng(3), fit=marginal)
        final[aggregate] = result.own_error[-4:].mean()
    assert final[True] < 0.5 * final[False]


def test_dagger_with_full_mixing_is_cloning(rng):
    mdp, expert = road(10, 2, rng)
    config = DaggerConfig(rounds=3, trajectories=5, horizon=10, mixing=1.0)
    result = dagger(mdp, expert, config, rng=rng, fit=marginal)
    assert not result.counts[10:].any()


@pytest.mark.parametrize("setting", [{"rounds": 0}, {"mixing": 1.5}, {"horizon": 0}])
def test_bad_settings_are_named(setting):
    with pytest.raises(errors.InvalidHyperparameterError, match=next(iter(setting))):
        DaggerConfig(**setting)


def test_own_error_is_exact(rng):
    mdp, expert = road(15, 2, rng)
    config = DaggerConfig(rounds=2, trajectories=2, horizon=10)
    result = dagger(mdp, expert, config, rng=rng, fit=marginal)
    policy = result.policies[0]
    seen = sample_trajectories(mdp, policy, 20_000, 10, rng)
    sampled = (1.0 - expert[seen.acting_states, seen.actions]).mean()
    assert result.own_error[0] == pytest.approx(sampled, abs=0.01)
