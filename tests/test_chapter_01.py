"""Chapter 1: each displayed equation that has code, against the library."""

import numpy as np
import pytest

from irlbook import planning
from irlbook.envs import garnet, gridworld
from irlbook.exercises import get
from irlbook.mdp import TabularMDP, sample_trajectories


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def world(rng):
    """Eight states, three actions, rewards of both signs, no end."""
    mdp = garnet(8, 3, 3, rng, discount=0.9)
    return mdp.with_reward(rng.normal(size=(8, 3)))


@pytest.fixture
def policy(rng):
    return rng.dirichlet(np.ones(3), size=8)


@pytest.fixture
def ending():
    """A grid with an end and slips."""
    return gridworld(4, 4, slip=0.2, stay=False, step_reward=-0.05, start=(0, 0), discount=0.9)


@pytest.fixture
def worker():
    """The chapter's example: rest or work, fresh or tired."""
    transitions = np.zeros((2, 2, 2))
    transitions[:, 0, 0] = 1.0
    transitions[0, 1] = 0.5
    transitions[1, 1, 1] = 1.0
    return TabularMDP.create(transitions, [[0.0, 2.0], [0.0, 1.0]], start=0, discount=0.8)


def returns_of(mdp, policy, n, horizon, rng):
    runs = sample_trajectories(mdp, policy, n, horizon, rng)
    paid = mdp.reward[runs.acting_states, runs.actions] * mdp.discount**runs.steps
    return np.bincount(np.repeat(np.arange(n), runs.lengths), weights=paid, minlength=n)


def within(sample, value, errors=4.0):
    return abs(sample.mean() - value) <= errors * sample.std(ddof=1) / np.sqrt(len(sample))


def test_eq_1_1_and_1_3_value_is_the_mean_return(world, policy, ending, rng):
    for mdp, pi in ((world, policy), (ending, np.full((16, 4), 0.25))):
        sample = returns_of(mdp, pi, 5_000, 200, rng)
        value = planning.expected_return(mdp, pi)
        assert within(sample, value)
        assert not within(sample, value + 0.1 * sample.std())


def test_eq_1_2_a_reward_of_one_is_worth_the_effective_horizon(world, policy):
    mdp = world.with_reward(np.ones((8, 3)))
    assert np.allclose(planning.evaluate_policy(mdp, policy), 1 / (1 - 0.9))


def test_eq_1_4_to_1_6_bellman_expectation(world, policy):
    values = planning.evaluate_policy(world, policy)
    dense = world.dense()
    q = np.zeros((8, 3))
    for s in range(8):
        for a in range(3):
            q[s, a] = world.reward[s, a] + 0.9 * sum(
                dense[s, a, s2] * values[s2] for s2 in range(8)
            )
    assert np.allclose(q, planning.q_values(world, values))  # (1.4)
    assert np.allclose((policy * q).sum(axis=1), values)  # (1.5)
    chain = np.einsum("sa,sat->st", policy, dense)
    mean_reward = (policy * world.reward).sum(axis=1)
    assert np.allclose(np.linalg.solve(np.eye(8) - 0.9 * chain, mean_reward), values)  # (1.6)


def test_the_worker_by_hand(worker):
    plan = planning.policy_iteration(worker)
    assert np.allclose(plan.values, [50 / 7, 40 / 7])
    assert np.allclose(plan.q[1], [40 / 7, 39 / 7])
    visits = planning.occupancy_measure(worker, plan.policy)
    assert np.allclose(visits, [[0, 25 / 7], [10 / 7, 0]])


@pytest.mark.parametrize(("discount", "rests"), [(0.66, False), (0.67, True)])
def test_the_worker_rests_above_two_thirds(worker, discount, rests):
    plan = planning.value_iteration(worker.with_discount(discount), tolerance=1e-12)
    assert bool(plan.policy[1, 0] > 0.5) is rests


def test_eq_1_7_and_1_8_no_deterministic_policy_is_better(worker):
    best = planning.value_iteration(worker, tolerance=1e-12)
    assert np.allclose(best.q.max(axis=1), best.values)
    for fresh in range(2):
        for tired in range(2):
            values = planning.evaluate_policy(worker, np.eye(2)[[fresh, tired]])
            assert (values <= best.values + 1e-9).all()


@pytest.mark.parametrize("discount", [0.5, 0.9, 0.99])
def test_eq_1_9_to_1_11_contraction_and_stopping_rule(world, ending, discount):
    for mdp in (world.with_discount(discount), ending.with_discount(discount)):
        truth = planning.policy_iteration(mdp, tolerance=1e-9).values
        values = np.zeros(mdp.n_states)
        for _ in range(50):
            updated = planning.q_values(mdp, values).max(axis=1)
            before, after = (np.abs(v - truth).max() for v in (values, updated))
            change = np.abs(updated - values).max()
            assert after <= discount * before + 1e-9  # (1.10)
            assert after <= discount / (1 - discount) * change + 1e-9  # (1.11)
            values = updated


def test_eq_1_10_any_two_guesses_come_closer(world, rng):
    for _ in range(20):
        one, two = rng.normal(size=(2, 8))
        apart = np.abs(one - two).max()
        backed = [planning.q_values(world, v).max(axis=1) for v in (one, two)]
        assert np.abs(backed[0] - backed[1]).max() <= 0.9 * apart + 1e-12


def test_eq_1_12_policy_improvement_never_hurts(world, policy):
    for _ in range(6):
        values = planning.evaluate_policy(world, policy)
        policy = np.eye(3)[planning.q_values(world, values).argmax(axis=1)]
        improved = planning.evaluate_policy(world, policy)
        assert (improved >= values - 1e-10).all()
    assert np.allclose(improved, planning.value_iteration(world, tolerance=1e-10).values)


def test_eq_1_13_occupancy_sums_over_time(world, policy):
    by_time = planning.occupancy_by_time(world, policy, 400)
    here, total = world.start.copy(), np.zeros((8, 3))
    for t in range(400):
        joint = here[:, None] * policy
        assert np.allclose(by_time[t], 0.9**t * joint)
        total += 0.9**t * joint
        here = np.einsum("sa,sat->t", joint, world.dense())
    assert np.allclose(total, planning.occupancy_measure(world, policy), atol=1e-12)


def test_eq_1_14_to_1_16_price_flow_and_policy(world, policy, ending):
    for mdp, pi in ((world, policy), (ending, np.full((16, 4), 0.25))):
        rho = planning.occupancy_measure(mdp, pi)
        assert np.isclose((rho * mdp.reward).sum(), planning.expected_return(mdp, pi))  # (1.14)
        inflow = mdp.start + mdp.discount * (mdp.transitions.T @ rho.reshape(-1))
        alive = ~mdp.terminal
        assert np.allclose(rho.sum(axis=1)[alive], inflow[alive], atol=1e-12)  # (1.15)
        visited = rho.sum(axis=1) > 0
        assert np.allclose((rho / rho.sum(axis=1).clip(1e-300)[:, None])[visited], pi[visited])
        assert (rho[mdp.terminal] == 0).all()
    assert np.isclose(planning.occupancy_measure(world, policy).sum(), 1 / (1 - 0.9))


def test_eq_1_17_backward_induction_is_value_iteration_read_backwards(world):
    plan = planning.backward_induction(world, 12)
    values = np.zeros(8)
    for t in range(11, -1, -1):
        values = planning.q_values(world, values).max(axis=1)
        assert np.allclose(plan.values[t], values)


def test_eq_1_18_maximum_inside_the_mean(world):
    truth = planning.value_iteration(world, tolerance=1e-12).q
    inside, outside = np.zeros((8, 3)), np.zeros((8, 3))
    for _ in range(400):
        inside = world.reward + 0.9 * world.dense() @ inside.max(axis=1)
        outside = world.reward + 0.9 * (world.dense() @ outside).max(axis=2)
    assert np.allclose(inside, truth, atol=1e-9)
    assert (outside <= truth + 1e-9).all() and not np.allclose(outside, truth, atol=0.01)


@pytest.mark.parametrize("number", range(1, 6))
def test_wrong_answers_fail_on_many_seeds(number):
    from irlbook.authoring.repository import find_root
    from irlbook.exercises import release
    from irlbook.exercises.extract import parse_notebook, read_notebook

    path = find_root() / "solutions" / "01_mdps_and_planning.ipynb"
    code = parse_notebook(read_notebook(path))
    exercise = get(f"01.{number}")
    assert len(exercise.wrong_answers) >= 5
    assert release.problems(exercise, code, tuple(range(100, 108))) == []
