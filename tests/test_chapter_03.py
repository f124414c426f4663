"""Chapter 3: each displayed equation that has code, against the library."""

import itertools

import numpy as np
import pytest
from scipy import sparse
from scipy.sparse.linalg import spsolve

from irlbook import planning
from irlbook.envs import garnet, gridworld
from irlbook.mdp import TabularMDP


def kl(p, m):
    return float((p * np.log(p / m)).sum())


def one_decision(reward):
    """A bandit as an MDP: one state, then the end."""
    n_actions = len(reward)
    transitions = np.zeros((2, n_actions, 2))
    transitions[0, :, 1] = 1.0
    rewards = np.stack([reward, np.zeros(n_actions)])
    return TabularMDP.create(transitions, rewards, start=0, discount=1.0, terminal=[1])


def regularised_return(mdp, policy, measure, beta):
    """J of a fixed policy: the price of information is one more reward."""
    priced = mdp.reward - beta * np.log(policy / measure)
    priced = np.where(mdp.terminal[:, None], 0.0, priced)
    return planning.expected_return(mdp.with_reward(priced), policy)


@pytest.fixture
def bandit(rng):
    return rng.normal(size=5), rng.dirichlet(np.ones(5)), 0.6


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def world(rng):
    return garnet(8, 3, 3, rng, discount=0.9), rng.dirichlet(np.ones(3), size=8), 0.4


@pytest.fixture
def corridor():
    """Deterministic, undiscounted, with an end; the reference is a random habit."""
    mdp = gridworld(
        2, 3, goals={(1, 2): 1.0}, stay=False, step_reward=-0.1, start=(0, 0), discount=1.0
    )
    return mdp, np.random.default_rng(1).dirichlet(np.ones(4), size=6), 0.5


def solve_bandit(reward, measure, beta):
    plan = planning.soft_backward_induction(
        one_decision(reward), 1, beta=beta, reference=np.stack([measure, measure])
    )
    return plan.values[0, 0], plan.policy[0, 0]


def test_eq_3_2_optimum_and_value_of_one_decision(bandit):
    reward, measure, beta = bandit
    value, policy = solve_bandit(*bandit)
    weights = measure * np.exp(reward / beta)
    np.testing.assert_allclose(policy, weights / weights.sum(), atol=1e-13)
    np.testing.assert_allclose(value, beta * np.log(weights.sum()), atol=1e-13)


def test_eq_3_1_and_3_3_each_policy_loses_beta_times_its_kl_to_the_optimum(bandit, rng):
    reward, measure, beta = bandit
    value, best = solve_bandit(*bandit)
    for policy in rng.dirichlet(np.ones(5), size=50):
        objective = policy @ reward - beta * kl(policy, measure)
        assert value - objective == pytest.approx(beta * kl(policy, best), abs=1e-12)


def test_eq_3_4_entropy_is_the_counting_measure(bandit):
    reward, _, beta = bandit
    counting, policy = solve_bandit(reward, np.ones(5), beta)
    uniform, same = solve_bandit(reward, np.full(5, 0.2), beta)
    entropy = -(policy * np.log(policy)).sum()
    assert counting == pytest.approx(policy @ reward + beta * entropy)
    assert counting - uniform == pytest.approx(beta * np.log(5))
    np.testing.assert_allclose(policy, same)


@pytest.mark.parametrize("beta", [0.05, 0.6, 20.0])
def test_eq_3_5_soft_maximum_lies_above_the_maximum_by_at_most_beta_log_a(bandit, beta):
    reward, measure, _ = bandit
    value, _ = solve_bandit(reward, np.ones(5), beta)
    assert reward.max() <= value <= reward.max() + beta * np.log(5)
    value, _ = solve_bandit(reward, measure, beta)
    assert measure @ reward <= value <= reward.max()


def test_eq_3_6_slopes_are_the_policy_and_minus_the_information(bandit):
    reward, measure, beta = bandit
    _, policy = solve_bandit(*bandit)
    h = 1e-6
    for a in range(5):
        step = h * np.eye(5)[a]
        up = solve_bandit(reward + step, measure, beta)[0]
        down = solve_bandit(reward - step, measure, beta)[0]
        assert (up - down) / (2 * h) == pytest.approx(policy[a], abs=1e-8)
    up, down = (solve_bandit(reward, measure, beta + d)[0] for d in (h, -h))
    assert (up - down) / (2 * h) == pytest.approx(-kl(policy, measure), abs=1e-8)


def test_eq_3_7_limits_of_the_temperature(bandit):
    reward, measure, _ = bandit
    value, policy = solve_bandit(reward, measure, 1e-3)
    assert value == pytest.approx(reward.max(), abs=0.01) and policy.max() > 1 - 1e-9
    value, policy = solve_bandit(reward, measure, 1e6)
    assert value == pytest.approx(measure @ reward, abs=1e-5)
    np.testing.assert_allclose(policy, measure, atol=1e-5)


@pytest.mark.parametrize("shift", [5e4, -5e4])
def test_eq_3_8_a_shift_of_the_reward_shifts_the_value_without_overflow(bandit, shift):
    reward, measure, beta = bandit
    value, policy = solve_bandit(*bandit)
    moved, same = solve_bandit(reward + shift, measure, beta)
    assert moved - shift == pytest.approx(value, abs=1e-9)
    np.testing.assert_allclose(policy, same, atol=1e-9)


def test_eq_3_9_soft_bellman_equation_with_loops(world):
    mdp, measure, beta = world
    plan = planning.soft_policy_iteration(mdp, beta=beta, reference=measure, tolerance=1e-12)
    transitions = mdp.dense()
    for s in range(8):
        q = [mdp.reward[s, a] + 0.9 * transitions[s, a] @ plan.values for a in range(3)]
        total = sum(measure[s, a] * np.exp(q[a] / beta) for a in range(3))
        assert plan.values[s] == pytest.approx(beta * np.log(total), abs=1e-10)
        for a in range(3):
            assert plan.q[s, a] == pytest.approx(q[a], abs=1e-10)
            expected = measure[s, a] * np.exp((q[a] - plan.values[s]) / beta)
            assert plan.policy[s, a] == pytest.approx(expected, abs=1e-10)


def test_eq_3_10_what_a_policy_loses_over_several_steps(world, rng):
    mdp, measure, beta = world
    plan = planning.soft_policy_iteration(mdp, beta=beta, reference=measure, tolerance=1e-12)
    for _ in range(10):
        policy = rng.dirichlet(np.ones(3), size=8)
        visits = planning.occupancy_measure(mdp, policy).sum(axis=1)
        loss = beta * visits @ (policy * np.log(policy / plan.policy)).sum(axis=1)
        gap = mdp.start @ plan.values - regularised_return(mdp, policy, measure, beta)
        assert gap == pytest.approx(loss, abs=1e-9)


def all_trajectories(mdp, s, steps):
    if steps == 0 or mdp.terminal[s]:
        return [()]
    successor = mdp.dense()[s].argmax(axis=1)
    return [
        ((s, a), *rest)
        for a in range(mdp.n_actions)
        for rest in all_trajectories(mdp, successor[a], steps - 1)
    ]


def test_eq_3_11_and_3_12_against_the_list_of_all_trajectories(corridor):
    mdp, measure, beta = corridor
    plan = planning.soft_backward_induction(mdp, 4, beta=beta, reference=measure)
    listed = all_trajectories(mdp, 0, 4)
    habit = np.array([np.prod([measure[s, a] for s, a in tau]) for tau in listed])
    returns = np.array([sum(mdp.reward[s, a] for s, a in tau) for tau in listed])
    total = beta * np.log((habit * np.exp(returns / beta)).sum())
    assert plan.values[0, 0] == pytest.approx(total, abs=1e-13)
    taken = [np.prod([plan.policy[t, s, a] for t, (s, a) in enumerate(tau)]) for tau in listed]
    np.testing.assert_allclose(taken, habit * np.exp((returns - total) / beta), atol=1e-14)


def test_eq_3_13_the_naive_reweighting_prefers_a_gamble_that_the_causal_one_avoids():
    transitions = np.zeros((5, 2, 5))
    transitions[0, 0, 1] = 1.0
    transitions[0, 1, 2:4] = 0.3, 0.7
    transitions[1:4, :, 4] = 1.0
    mdp = TabularMDP.create(transitions, [0, 1, 3, 0, 0], start=0, discount=1.0, terminal=[4])
    beta, coin = 0.5, np.full((5, 2), 0.5)
    causal = planning.soft_backward_induction(mdp, 2, beta=beta, reference=coin)
    naive = np.array([np.exp(1 / beta), 0.3 * np.exp(3 / beta) + 0.7])
    naive = naive / naive.sum()
    assert naive[1] > 0.9 and causal.policy[0, 0, 1] < 0.5
    mean = np.array([1.0, 0.9])
    assert causal.values[0, 0] > naive @ mean - beta * kl(naive, coin[0])


def test_eq_3_14_soft_value_iteration_contracts_by_the_discount(world, rng):
    mdp, measure, beta = world

    def backup(values):
        return planning.soft_backup(planning.q_values(mdp, values), beta, np.log(measure))[0]

    for _ in range(50):
        one, other = rng.normal(size=(2, 8))
        assert np.abs(backup(one) - backup(other)).max() <= 0.9 * np.abs(one - other).max() + 1e-12


def test_eq_3_15_newton_squares_the_error_within_its_constant(world):
    mdp, measure, beta = world
    exact = planning.soft_policy_iteration(mdp, beta=beta, reference=measure, tolerance=1e-12)
    constant = 0.9**2 / (2 * beta * (1 - 0.9))
    values = np.zeros(8)
    for _ in range(6):
        target, policy = planning.soft_backup(planning.q_values(mdp, values), beta, np.log(measure))
        chain = np.einsum("sa,sat->st", policy, mdp.dense())
        stepped = values + np.linalg.solve(np.eye(8) - 0.9 * chain, target - values)
        error = np.abs(values - exact.values).max()
        assert np.abs(stepped - exact.values).max() <= constant * error**2 + 1e-10
        values = stepped
    np.testing.assert_allclose(values, exact.values, atol=1e-10)


@pytest.mark.parametrize("beta", [0.01, 1.0, 100.0])
def test_eq_3_16_distance_of_soft_from_hard(world, beta):
    mdp, _, _ = world
    hard = planning.policy_iteration(mdp).values
    plan = planning.soft_policy_iteration(mdp, beta=beta)
    bound = beta * np.log(3) / (1 - 0.9)
    assert (hard <= plan.values + 1e-8).all() and (plan.values <= hard + bound).all()
    plain = planning.evaluate_policy(mdp, plan.policy)
    assert (hard - bound <= plain).all() and (plain <= hard + 1e-8).all()


def test_eq_3_16_is_reached_when_all_rewards_are_equal(world):
    flat = world[0].with_reward(np.ones((8, 3)))
    soft = planning.soft_policy_iteration(flat, beta=1.0).values
    gap = soft - planning.policy_iteration(flat).values
    np.testing.assert_allclose(gap, np.log(3) / (1 - 0.9), rtol=1e-7)


def test_eq_3_17_the_slope_of_the_frontier_is_the_price(world):
    mdp, measure, beta = world

    def point(price):
        plan = planning.soft_policy_iteration(mdp, beta=price, reference=measure, tolerance=1e-12)
        visits = planning.occupancy_measure(mdp, plan.policy).sum(axis=1)
        nats = visits @ (plan.policy * np.log(plan.policy / measure)).sum(axis=1)
        return planning.expected_return(mdp, plan.policy), nats

    high, low = point(beta * 1.001), point(beta * 0.999)
    assert (high[0] - low[0]) / (high[1] - low[1]) == pytest.approx(beta, rel=1e-4)
    gains, nats = np.array([point(b) for b in np.geomspace(0.05, 20, 12)]).T
    assert (np.diff(gains) < 0).all() and (np.diff(nats) < 0).all()
    assert (np.diff(np.diff(gains) / np.diff(nats)) > 0).all()


def test_eq_3_18_shaping_moves_values_and_keeps_the_policy(rng):
    mdp = gridworld(3, 3, slip=0.2, discount=0.9)
    potential = np.where(mdp.terminal, 0.0, rng.normal(size=9))

    def shaped(phi):
        ahead = (mdp.transitions @ phi).reshape(mdp.reward.shape)
        change = mdp.reward + 0.9 * ahead - phi[:, None]
        return mdp.with_reward(np.where(mdp.terminal[:, None], 0.0, change))

    solve = {"beta": 0.3, "tolerance": 1e-12}
    before = planning.soft_policy_iteration(mdp, **solve)
    after = planning.soft_policy_iteration(shaped(potential), **solve)
    np.testing.assert_allclose(after.values, before.values - potential, atol=1e-10)
    alive = ~mdp.terminal
    np.testing.assert_allclose(after.policy[alive], before.policy[alive], atol=1e-9)
    potential[mdp.terminal] = 5.0  # the planted mistake: not zero at the end
    broken = planning.soft_policy_iteration(shaped(potential), **solve)
    assert np.abs(broken.policy - before.policy)[alive].max() > 0.05


def test_eq_3_19_the_desirability_solves_a_linear_system(corridor):
    mdp, measure, beta = corridor
    tilt = sparse.diags_array((measure * np.exp(mdp.reward / beta)).reshape(-1))
    fold = sparse.kron(sparse.eye_array(6), np.ones((1, 4)))
    alive = sparse.diags_array((~mdp.terminal).astype(float))
    matrix = alive @ (fold @ tilt @ mdp.transitions)
    z = spsolve((sparse.eye_array(6) - matrix).tocsc(), mdp.terminal.astype(float))
    plan = planning.soft_policy_iteration(mdp, beta=beta, reference=measure, tolerance=1e-13)
    np.testing.assert_allclose(beta * np.log(z), plan.values, atol=1e-11)


@pytest.fixture
def token_tree(rng):
    """Two tokens, three long: prefixes are states, the reward comes with the last token."""
    prefixes = [p for n in range(3) for p in itertools.product(range(2), repeat=n)]
    number = {p: i for i, p in enumerate(prefixes)}
    over = len(prefixes)
    transitions, reward = np.zeros((over + 1, 2, over + 1)), np.zeros((over + 1, 2))
    gold = {y: rng.normal() for y in itertools.product(range(2), repeat=3)}
    for prefix, s in number.items():
        for a in range(2):
            longer = (*prefix, a)
            transitions[s, a, number.get(longer, over)] = 1.0
            reward[s, a] = gold.get(longer, 0.0)
    mdp = TabularMDP.create(transitions, reward, start=0, discount=1.0, terminal=[over])
    model = rng.dirichlet(np.ones(2), size=over + 1)
    return mdp, model, number, gold


def probability(policy, number, response, begin=0):
    steps = range(begin, len(response))
    return np.prod([policy[number[response[:t]], response[t]] for t in steps])


def test_eq_3_20_to_3_23_rlhf_on_a_tree_of_tokens(token_tree):
    mdp, model, number, gold = token_tree
    beta = 0.7
    plan = planning.soft_policy_iteration(mdp, beta=beta, reference=model, tolerance=1e-13)
    responses = list(gold)
    reward = np.array([gold[y] for y in responses])
    reference = np.array([probability(model, number, y) for y in responses])
    optimum = np.array([probability(plan.policy, number, y) for y in responses])
    weights = reference * np.exp(reward / beta)
    np.testing.assert_allclose(optimum, weights / weights.sum(), atol=1e-13)  # (3.20)
    for prefix, s in number.items():  # (3.21)
        n = len(prefix)
        below = sum(
            probability(model, number, y, n) * np.exp(gold[y] / beta)
            for y in responses
            if y[:n] == prefix
        )
        assert plan.values[s] == pytest.approx(beta * np.log(below), abs=1e-12)
        for token in range(2 if n < 2 else 0):
            share = beta * np.log(plan.policy[s, token] / model[s, token])
            ahead = plan.values[number[(*prefix, token)]]
            assert share == pytest.approx(ahead - plan.values[s], abs=1e-12)
    implicit = beta * np.log(optimum / reference)
    np.testing.assert_allclose(
        implicit + beta * np.log(weights.sum()), reward, atol=1e-12
    )  # (3.22)
    np.testing.assert_allclose(  # (3.23)
        implicit[:, None] - implicit, reward[:, None] - reward, atol=1e-12
    )


def test_hard_max_in_the_backup_is_caught_by_the_list_of_trajectories(corridor):
    """A planted bug that is seen in popular code: the policy still sums to one."""
    mdp, measure, beta = corridor
    values = np.zeros((5, 6))
    for t in reversed(range(4)):
        values[t] = planning.q_values(mdp, values[t + 1]).max(axis=1) * ~mdp.terminal
    right = planning.soft_backward_induction(mdp, 4, beta=beta, reference=measure)
    q = planning.q_values(mdp, values[1])
    wrong = np.exp(planning.soft_log_policy(q, beta, np.log(measure)))
    np.testing.assert_allclose(wrong.sum(axis=1), 1.0)
    assert np.abs(wrong - right.policy[0])[0].max() > 0.02


def test_a_forgotten_reference_keeps_the_agent_from_going_home():
    mdp = gridworld(3, 3, stay=False, discount=0.95, start=(0, 0))
    walk = np.full((9, 4), 0.25)
    lengths = []
    for reference in (walk, None):
        plan = planning.soft_policy_iteration(mdp, beta=0.5, reference=reference)
        lengths.append(planning.occupancy_measure(mdp.with_discount(1.0), plan.policy).sum())
    random = planning.occupancy_measure(mdp.with_discount(1.0), walk).sum()
    assert lengths[0] < random < lengths[1]
