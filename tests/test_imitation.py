"""Behaviour cloning and DAgger: each law against an exact oracle, each silent bug planted."""

import itertools

import numpy as np
import pytest

from irlbook import errors, planning
from irlbook.envs import cloning_chain, garnet
from irlbook.envs.gridworld import gridworld
from irlbook.envs.road import road
from irlbook.imitation import dagger as dagger_module
from irlbook.imitation.behavior_cloning import (
    absorbing_cost,
    behavior_cloning,
    clone,
    draw,
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


def test_the_share_of_a_label_falls_as_its_smoothing_grows():
    """eq 4.2 by hand, with the limits of what may be asked for."""
    counts = np.array([[2.0, 0.0, 1.0]])
    np.testing.assert_allclose(clone(counts, smoothing=0.5), [[2.5 / 4.5, 0.5 / 4.5, 1.5 / 4.5]])
    nearly = [0.2, 0.3, 0.5 + 5e-9]  # a sum that is 1 to rounding
    np.testing.assert_allclose(clone(np.eye(3) * [[1], [0], [0]], fallback=nearly)[1], nearly)
    for bad in ([0.2, 0.3, 0.5 + 1e-7], [1.1, -0.1, 0.0], [0.5, 0.5], "mode"):
        with pytest.raises(errors.InvalidHyperparameterError, match="fallback must be None"):
            clone(counts, fallback=bad)
    for bad in (np.inf, np.nan, -1e-9):
        with pytest.raises(errors.InvalidHyperparameterError, match="smoothing must be 0 or more"):
            clone(counts, smoothing=bad)
    np.testing.assert_allclose(clone([[0.25, 0.25]]), [[0.5, 0.5]])  # weights need not be whole


def test_behaviour_cloning_smooths_counts_and_not_shares():
    """Two demonstrations of three steps are six labels, and one more of each action eight."""
    mdp = cloning_chain()
    seen = Trajectories.from_list([([0, 0, 0, 0], [0, 0, 0])] * 2)
    np.testing.assert_allclose(behavior_cloning(seen, mdp, smoothing=1.0)[0], [7 / 8, 1 / 8])


def test_the_loss_is_infinite_where_a_label_was_impossible_and_0_where_all_were_certain():
    counts = np.array([[1.0, 0.0], [0.0, 3.0]])
    assert log_loss([[0.0, 1.0], [0.5, 0.5]], counts) == np.inf
    assert log_loss([[1.0, 0.0], [0.0, 1.0]], counts) == 0.0
    assert log_loss([[0.5, 0.5], [0.75, 0.25]], counts) == pytest.approx(
        (np.log(2) + 3 * np.log(4)) / 4
    )


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
    with pytest.raises(errors.InvalidTrajectoryError, match=r"row 1: state 2 is outside 0\.\.1"):
        label_counts([1, 2], [0, 0], 2, 3)
    np.testing.assert_array_equal(label_counts([0, 0, 1], [1, 1, 0], 2, 2), [[0, 2], [1, 0]])
    np.testing.assert_array_equal(label_counts([0, 1], [2, 0], 3, 3)[:2], [[0, 0, 1], [1, 0, 0]])


def test_a_draw_never_takes_what_cannot_be():
    """Also where the random number is exactly 0, and where the rows need not sum to 1."""

    class Fixed:
        def __init__(self, value):
            self.value = value

        def random(self, n):
            return np.full(n, self.value)

    rows = np.array([[0.0, 1.0, 0.0], [0.5, 0.0, 0.5], [0.0, 0.0, 2.0]])
    assert draw(rows, Fixed(0.0)).tolist() == [1, 0, 2]
    assert draw(rows, Fixed(0.5)).tolist() == [1, 2, 2]
    assert draw(rows, Fixed(1 - 2**-53)).tolist() == [1, 2, 2]


def test_draws_have_the_shares_of_their_row(rng):
    rows = np.tile([[0.2, 0.3, 0.5]], (20_000, 1))
    shares = np.bincount(draw(rows, rng), minlength=3) / 20_000
    np.testing.assert_allclose(shares, [0.2, 0.3, 0.5], atol=0.015)


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


def test_marginals_begin_at_the_start_and_end_with_the_episodes(rng):
    world = gridworld(3, 3, start=(0, 0))
    east = np.eye(5)[world.dense()[0, :, 1] == 1.0]  # (1, A) the action that walks east
    there = state_marginals(world, np.repeat(east, 9, axis=0), 3)
    assert there.argmax(axis=1).tolist() == [0, 1, 2] and there.sum() == 3.0
    chain = TabularMDP.create(
        np.array([[[0.5, 0.5]], [[0.0, 0.0]]]), np.zeros((2, 1)), start=0, terminal=[1]
    )
    np.testing.assert_allclose(
        state_marginals(chain, np.ones((2, 1)), 3), [[1, 0], [0.5, 0], [0.25, 0]]
    )
    with pytest.raises(errors.InvalidHyperparameterError, match="horizon must be 1 or more; got 0"):
        state_marginals(chain, np.ones((2, 1)), 0)
    with pytest.raises(errors.InvalidPolicyError, match="stationary"):
        state_marginals(chain, np.ones((3, 2, 1)), 3)


def test_kl_of_trajectories_counts_only_where_the_expert_goes():
    """States 0 -> 1 -> 1 for the expert; what the policy would do in state 2 costs nothing."""
    moves = np.zeros((3, 2, 3))
    moves[0, 0, 1] = moves[0, 1, 2] = moves[1, :, 1] = moves[2, :, 2] = 1.0
    mdp = TabularMDP.create(moves, np.zeros((3, 2)), start=0, discount=0.9)
    expert = np.array([[1.0, 0.0], [0.5, 0.5], [1.0, 0.0]])
    policy = np.array([[0.25, 0.75], [0.5, 0.5], [0.0, 1.0]])
    assert trajectory_kl(mdp, expert, policy, 3) == pytest.approx(np.log(4))
    policy[1] = [1.0, 0.0]
    assert trajectory_kl(mdp, expert, policy, 1) == pytest.approx(np.log(4))  # not yet in state 1
    assert trajectory_kl(mdp, expert, policy, 2) == np.inf


def test_chances_lie_between_0_and_1_with_both_ends(rng):
    np.testing.assert_allclose(absorbing_cost([0.0, 1.0], 7), [0.0, 7.0])
    np.testing.assert_allclose(absorbing_cost(0.5, [[0], [1], [2]]), [[0], [0.5], [1.25]])
    for bad in (-1e-9, 1 + 1e-9, [0.5, 2.0]):
        with pytest.raises(errors.InvalidHyperparameterError, match="error is a probability"):
            absorbing_cost(bad, 3)
    mdp, expert = road(8, 2, rng)
    for noise in (0.0, 1.0):
        noisy_demonstrations(mdp, expert, noise, 1, 2, rng)
    for bad in (-1e-9, 1 + 1e-9):
        with pytest.raises(errors.InvalidHyperparameterError, match="noise is a probability"):
            noisy_demonstrations(mdp, expert, bad, 1, 2, rng)


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


def test_intention_and_execution_have_their_joint_distribution(rng):
    """One state, an expert of [0.8, 0.2], noise 0.5: Pr(wanted a, executed b) by hand."""
    mdp = TabularMDP.create(np.ones((1, 2, 1)), np.zeros((1, 2)), discount=0.9)
    seen, labels = noisy_demonstrations(mdp, np.array([[0.8, 0.2]]), 0.5, 400, 50, rng)
    joint = np.zeros((2, 2))
    np.add.at(joint, (labels, seen.actions), 1 / len(labels))
    wanted = np.array([0.8, 0.2])
    np.testing.assert_allclose(joint, wanted[:, None] * (np.eye(2) + 0.5) / 2, atol=0.015)
    seen, labels = noisy_demonstrations(mdp, np.array([[0.8, 0.2]]), 0.0, 5, 20, rng)
    np.testing.assert_array_equal(labels, seen.actions)  # without noise the expert acts


def test_the_expert_is_mixed_in_with_a_chance_that_falls_geometrically(rng, monkeypatch):
    """Round i executes beta^i of the expert and the rest of what was learnt in round i - 1."""
    mdp, expert = road(10, 2, rng)
    executed = []

    def noted(mdp, policy, *args):
        executed.append(policy)
        return sample_trajectories(mdp, policy, *args)

    monkeypatch.setattr(dagger_module, "sample_trajectories", noted)
    config = DaggerConfig(rounds=4, trajectories=2, horizon=5, mixing=0.5)
    found = dagger(mdp, expert, config, rng=rng, fit=marginal)
    np.testing.assert_array_equal(executed[0], expert)
    for i in (1, 2, 3):
        mixed = 0.5**i * expert + (1 - 0.5**i) * found.policies[i - 1]
        np.testing.assert_allclose(executed[i], mixed)


def test_without_aggregation_the_counts_are_those_of_the_last_round(rng):
    mdp, expert = road(10, 2, rng)
    config = DaggerConfig(rounds=3, trajectories=2, horizon=5, aggregate=False)
    found = dagger(mdp, expert, config, rng=rng, fit=marginal)
    assert found.counts.sum() == 10 and found.labels.tolist() == [10, 20, 30]
    np.testing.assert_array_equal(found.policies[-1], marginal(found.counts))
    assert found.best == min(range(3), key=lambda i: found.own_error[i])


def test_one_step_to_go_is_worth_its_reward_and_the_end_nothing(rng):
    mdp = gridworld(3, 3, start=(0, 0), discount=0.5)
    policy = soft(rng, 9, 5)
    values, q = values_to_go(mdp, policy, 2)
    np.testing.assert_allclose(q[1], mdp.reward)
    assert values.shape == (3, 9) and q.shape == (2, 9, 5) and not values[2].any()
    ahead = np.einsum("sat,t->sa", mdp.dense(), values[1])
    np.testing.assert_allclose(q[0], mdp.reward + 0.5 * ahead)


def test_recovery_leaves_out_the_states_in_which_episodes_have_ended():
    """One wrong step on the way to the goal costs one more move or two, and the goal none."""
    moves = np.zeros((2, 2, 2))
    moves[0, 0, 1] = moves[0, 1, 0] = 1.0  # go home, or stay
    mdp = TabularMDP.create(moves, [[1.0, -2.0], [0.0, 0.0]], start=0, discount=1.0, terminal=[1])
    home = np.array([[1.0, 0.0], [1.0, 0.0]])
    assert recovery(mdp, home, 1) == 3.0  # 1 - (-2)
    assert recovery(mdp, home, 9) == 3.0  # 1 - (-2 + 1) early, 1 - (-2) at the last step


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


@pytest.mark.parametrize("name", ["rounds", "trajectories", "horizon"])
def test_a_count_may_be_1_and_not_0(name):
    DaggerConfig(**{name: 1})
    with pytest.raises(errors.InvalidHyperparameterError, match=f"{name} must be at least 1"):
        DaggerConfig(**{name: 0})


def test_mixing_is_a_probability():
    assert DaggerConfig(mixing=0.0) != DaggerConfig(mixing=1.0)
    for bad in (-1e-9, 1 + 1e-9):
        with pytest.raises(errors.InvalidHyperparameterError, match="mixing is a probability"):
            DaggerConfig(mixing=bad)


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
