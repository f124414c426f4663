"""The ground floor: what TabularMDP accepts and refuses, trajectories, Gymnasium's tables."""

import re

import gymnasium
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracles import enumerated_occupancy, gymnasium_values
from scipy import sparse, stats
from strategies import mdps, random_mdp, random_policy, shuffle

from irlbook import envs, planning
from irlbook.errors import (
    InvalidHyperparameterError,
    InvalidMDPError,
    InvalidPolicyError,
    InvalidTrajectoryError,
    IrlbookError,
    MDPNotFiniteError,
    MDPNotStochasticError,
    MDPShapeError,
    NotFiniteError,
    NotStochasticError,
    ShapeError,
    TerminalRewardError,
)
from irlbook.mdp import TabularMDP, Trajectories, check_policy, sample_trajectories

SEEDS = st.integers(0, 10**6)


def world(n_states=3, n_actions=2):
    """Dense transitions (S, A, S), every entry positive."""
    return np.random.default_rng(0).dirichlet(np.ones(n_states), (n_states, n_actions))


def changed(array, where, value):
    array = np.array(array, dtype=float)
    array[where] = value
    return array


# ---------------------------------------------------------------- what create refuses

BAD = {
    "negative discount": (dict(discount=-0.1), InvalidMDPError, "discount must lie in .* got -0.1"),
    "discount above 1": (dict(discount=1.01), InvalidMDPError, "discount must lie in"),
    "discount NaN": (dict(discount=np.nan), InvalidMDPError, "got nan"),
    "row above 1": (
        dict(transitions=changed(world(), (1, 0), [0.5, 0.5, 0.5])),
        NotStochasticError,
        r"s=1, a=0\) sums to 1.5, not 1 \(1 such rows\)",
    ),
    "empty row": (
        dict(transitions=changed(world(), (2, 1), 0.0)),
        NotStochasticError,
        r"s=2, a=1\) sums to 0, not 1.*terminal",
    ),
    "negative": (
        dict(transitions=changed(world(), (2, 0), [1.5, -0.5, 0.0])),
        NotStochasticError,
        r"s=2, a=0\) has a negative probability \(-0.5\)",
    ),
    "NaN": (dict(transitions=changed(world(), (0, 0, 0), np.nan)), NotFiniteError, "NaN"),
    "infinite": (dict(transitions=changed(world(), (0, 0, 0), np.inf)), NotFiniteError, "infinity"),
    "sparse NaN": (
        dict(transitions=sparse.csr_array(changed(world().reshape(6, 3), (0, 0), np.nan))),
        NotFiniteError,
        "NaN",
    ),
    "1-D transitions": (dict(transitions=np.ones(3)), ShapeError, r"got shape \(3,\)"),
    "(S, A, S') transitions": (
        dict(transitions=np.ones((3, 2, 4)) / 4),
        ShapeError,
        r"got shape \(3, 2, 4\)",
    ),
    "rows not S*A": (dict(transitions=np.ones((7, 3)) / 3), ShapeError, "7 rows for 3 states"),
    "no states": (dict(transitions=np.zeros((0, 0))), ShapeError, "0 rows for 0 states"),
    "reward NaN": (dict(reward=[0, np.nan, 0]), NotFiniteError, "reward holds NaN.*`reference`"),
    "reward -inf": (dict(reward=[0, -np.inf, 0]), NotFiniteError, "forbid an action"),
    "sparse reward NaN": (
        dict(reward=sparse.csr_array(np.full((6, 3), np.nan))),
        NotFiniteError,
        "reward holds NaN",
    ),
    "reward shape": (dict(reward=np.zeros(4)), ShapeError, r"shape \(4,\).*S=3, A=2"),
    "sparse reward shape": (
        dict(reward=sparse.csr_array((3, 6))),
        ShapeError,
        r"\(3, 6\); expected \(6, 3\)",
    ),
    "start sum": (dict(start=[0.5, 0.4, 0.0]), NotStochasticError, "it sums to 0.9"),
    "start negative": (dict(start=[1.5, -0.5, 0.0]), NotStochasticError, "distribution"),
    "start NaN": (dict(start=[1.0, np.nan, 0.0]), NotFiniteError, "start holds NaN"),
    "start shape": (dict(start=[0.5, 0.5]), ShapeError, r"\(2,\); expected \(3,\)"),
    "start outside": (dict(start=3), InvalidMDPError, r"start state 3 is outside 0\.\.2"),
    "start below": (dict(start=-1), InvalidMDPError, "start state -1"),
    "terminal outside": (dict(terminal=[3]), InvalidMDPError, r"outside 0\.\.2"),
    "terminal shape": (dict(terminal=[True, False]), ShapeError, r"\(2,\); expected \(3,\)"),
    "terminal 0/1 mask": (dict(terminal=[0, 0, 1]), InvalidMDPError, "mask must be bool"),
    "all terminal": (
        dict(terminal=[0, 1, 2], reward=np.zeros(3)),
        InvalidMDPError,
        "every state is terminal",
    ),
    "reward on terminal": (
        dict(terminal=[2], reward=[0.0, 0.0, 1.0]),
        TerminalRewardError,
        "state 2 is terminal and has a reward.*transitions into",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_create_refuses(name):
    parts, error, message = BAD[name]
    parts = {"transitions": world(), "reward": np.ones(3), **parts}
    with pytest.raises(error, match=message):
        TabularMDP.create(parts.pop("transitions"), parts.pop("reward"), **parts)


def test_every_error_is_a_value_error_that_names_a_mend():
    of_mdps = (MDPShapeError, MDPNotStochasticError, MDPNotFiniteError, TerminalRewardError)
    for error in of_mdps:
        assert issubclass(error, InvalidMDPError) and issubclass(error, ValueError)
    for error in (ShapeError, NotStochasticError, NotFiniteError):  # also of losses and of fits
        assert issubclass(error, ValueError) and not issubclass(error, InvalidMDPError)
    with pytest.raises(InvalidMDPError, match="discount"):
        random_mdp(0).with_discount(2.0)


def test_sparse_transitions_of_one_dimension_are_refused():
    with pytest.raises(ShapeError, match="sparse transitions"):
        TabularMDP.create(sparse.coo_array(np.ones(3)), np.zeros(3))


# ---------------------------------------------------------------- what it makes of them


def test_shapes_of_transitions_agree():
    moves = world(4, 3)
    made = [
        TabularMDP.create(t, np.ones(4))
        for t in (
            moves,
            moves.tolist(),
            moves.reshape(12, 4),
            sparse.csr_array(moves.reshape(12, 4)),
            sparse.csc_matrix(moves.reshape(12, 4)),
            sparse.coo_array(moves.reshape(12, 4)),
        )
    ]
    for mdp in made:
        assert (mdp.n_states, mdp.n_actions) == (4, 3)
        assert mdp.transitions.format == "csr" and mdp.transitions.indices.dtype == np.int32
        np.testing.assert_array_equal(mdp.dense(), moves)


def test_duplicates_are_added_zeros_dropped_and_the_callers_matrix_left_alone():
    given = sparse.csr_array(
        (
            np.array([0.5, 0.25, 0.25, 0.0, 1.0, 1.0]),
            np.array([1, 1, 0, 0, 1, 0]),
            np.array([0, 3, 5, 6]),
        ),
        shape=(3, 3),
    )
    before = [given.data.copy(), given.indices.copy(), given.indptr.copy()]
    mdp = TabularMDP.create(given, np.zeros(3))
    np.testing.assert_array_equal(mdp.dense()[:, 0], [[0.25, 0.75, 0], [0, 1, 0], [1, 0, 0]])
    assert mdp.transitions.nnz == 4 and (mdp.transitions.data > 0).all()
    for was, array in zip(before, (given.data, given.indices, given.indptr), strict=True):
        np.testing.assert_array_equal(array, was)


def test_nothing_of_an_mdp_can_be_written():
    moves = sparse.csr_array(world().reshape(6, 3))
    mdp = TabularMDP.create(moves, np.ones((3, 2)), start=0)
    parts = mdp.transitions
    for array in (mdp.reward, mdp.start, mdp.terminal, parts.data, parts.indices, parts.indptr):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0
    with pytest.raises(AttributeError):
        mdp.discount = 0.5
    moves.data[0] = moves.data[0]  # the caller's own matrix stays writable
    with pytest.raises(ValueError, match="read-only"):
        mdp.with_reward(np.zeros(3)).reward[0] = 1


def test_arrays_given_are_not_shared():
    reward, start, terminal = np.ones((3, 2)), np.array([1.0, 0, 0]), np.zeros(3, dtype=bool)
    mdp = TabularMDP.create(world(), reward, start=start, terminal=terminal)
    reward[:], start[:], terminal[:] = 9, 9, True
    assert mdp.reward.max() == 1 and mdp.start.max() == 1 and not mdp.terminal.any()


def test_start_defaults_to_the_states_that_go_on():
    mdp = TabularMDP.create(world(), np.zeros(3), terminal=[1])
    np.testing.assert_array_equal(mdp.start, [0.5, 0, 0.5])
    assert TabularMDP.create(world(), np.zeros(3), start=2).start.tolist() == [0, 0, 1]


def test_what_a_terminal_state_would_do_is_dropped():
    for nonsense in (7.0, -1.0):
        mdp = TabularMDP.create(changed(world(), 2, nonsense), np.zeros(3), terminal=[2])
        assert not mdp.dense()[2].any()
        assert np.diff(mdp.transitions.indptr)[4:].tolist() == [0, 0]


@given(mdps(), SEEDS)
def test_kinds_of_reward_agree(mdp, seed):
    rng = np.random.default_rng(seed)
    moves, alive = mdp.dense(), ~mdp.terminal
    on_moves = rng.normal(size=moves.shape)
    expected = (moves * on_moves).sum(axis=2)
    rebuilt = TabularMDP.create(
        np.where(alive[:, None, None], moves, 1.0 / mdp.n_states), on_moves, terminal=mdp.terminal
    )
    np.testing.assert_allclose(rebuilt.reward, expected, atol=1e-12)
    as_sparse = sparse.csr_array(on_moves.reshape(-1, mdp.n_states))
    np.testing.assert_allclose(mdp.with_reward(as_sparse).reward, expected, atol=1e-12)
    np.testing.assert_allclose(mdp.with_reward(expected).reward, expected, atol=0)
    by_state = rng.normal(size=mdp.n_states) * alive
    everywhere = np.broadcast_to(by_state[:, None], mdp.reward.shape)
    same = np.broadcast_to(by_state[:, None, None], moves.shape)
    np.testing.assert_array_equal(mdp.with_reward(by_state).reward, everywhere)
    np.testing.assert_allclose(mdp.with_reward(same).reward, everywhere, atol=1e-12)


@given(mdps(), SEEDS)
def test_permute_there_and_back(mdp, seed):
    other, states, actions = shuffle(mdp, seed)
    back = other.permute(np.argsort(states), np.argsort(actions))
    np.testing.assert_array_equal(back.dense(), mdp.dense())
    for name in ("reward", "start", "terminal"):
        np.testing.assert_array_equal(getattr(back, name), getattr(mdp, name))
    np.testing.assert_array_equal(other.dense(), mdp.dense()[states][:, actions][:, :, states])


# ---------------------------------------------------------------- policies


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (np.ones((4, 3)) / 3, r"\(4, 3\); expected \(S, A\) = \(4, 2\)"),
        (np.ones((1, 1, 4, 2)) / 2, "expected"),
        (np.ones((4, 2)), "sum to 1"),
        (np.tile([1.5, -0.5], (4, 1)), "non-negative"),
        (np.full((4, 2), np.nan), "non-negative"),
    ],
)
def test_a_policy_must_be_one(policy, message):
    with pytest.raises(InvalidPolicyError, match=message):
        check_policy(random_mdp(0), policy)


# ---------------------------------------------------------------- trajectories


def two():
    return Trajectories.from_list([([0, 1, 2, 3], [1, 0, 1]), ([2, 3], [0])])


def test_trajectories_of_unlike_length():
    both = two()
    assert len(both) == 2 and both.lengths.tolist() == [3, 1]
    assert [(s.tolist(), a.tolist()) for s, a in both] == [
        ([0, 1, 2, 3], [1, 0, 1]),
        ([2, 3], [0]),
    ]
    assert both.steps.tolist() == [0, 1, 2, 0]
    assert both.acting_states.tolist() == [0, 1, 2, 2]


def test_counts_by_hand():
    expected = np.zeros((4, 2))
    expected[0, 1], expected[1, 0], expected[2, 1], expected[2, 0] = 1, 0.5, 0.25, 1
    np.testing.assert_allclose(two().counts(4, 2, discount=0.5), expected / 2)
    assert two().counts(4, 2).sum() == 2.0  # mean length
    assert two().counts(4, 2, discount=0.0).sum() == 1.0  # only first steps


def test_feature_expectations_on_states_and_on_pairs():
    rng = np.random.default_rng(0)
    on_states, on_pairs = rng.normal(size=(4, 3)), rng.normal(size=(4, 2, 3))
    by_hand = np.zeros((2, 3))
    for states, actions in two():
        for t, (s, a) in enumerate(zip(states[:-1], actions, strict=True)):
            by_hand += 0.9**t * np.array([on_states[s], on_pairs[s, a]]) / 2
    for features, expected in zip((on_states, on_pairs), by_hand, strict=True):
        got = two().feature_expectations(features, 2, discount=0.9)
        np.testing.assert_allclose(got, expected, atol=1e-14)
    got = two().feature_expectations(sparse.csr_array(on_states), 2, discount=0.9)
    np.testing.assert_allclose(got, by_hand[0], atol=1e-14)


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([], "no trajectories"),
        ([([0, 1], [0]), ([0], [])], "trajectory 1 is empty"),
        ([([0, 1], [0]), ([0, 1], [0, 1])], "trajectory 1 has 2 states and 2 actions"),
        ([([0, 1, 2], [0])], "trajectory 0 has 3 states and 1 actions"),
    ],
)
def test_from_list_refuses(pairs, message):
    with pytest.raises(InvalidTrajectoryError, match=message):
        Trajectories.from_list(pairs)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (([0, 1, 9], [0, 0]), r"trajectory 1, step 2: state 9 is outside 0\.\.3"),
        (([0, -1, 1], [0, 0]), "trajectory 1, step 1: state -1"),
        (([0, 1, 2], [0, 2]), r"trajectory 1, step 1: action 2 is outside 0\.\.1"),
        (([0, 1, 2], [-1, 0]), "trajectory 1, step 0: action -1"),
        (([0, 1, 0], [0, 0]), "trajectory 1, step 1: state 1, action 0 cannot lead to state 0"),
        (([2, 3, 3], [0, 0]), "trajectory 1, step 1: state 3, action 0 cannot lead to state 3"),
    ],
)
def test_impossible_demonstrations_name_trajectory_and_step(bad, message):
    line = np.eye(4)[[[1, 1], [2, 2], [3, 3], [3, 3]]]
    mdp = TabularMDP.create(line, np.zeros(4), start=0, terminal=[3])
    good = ([0, 1, 2, 3], [0, 1, 0])
    assert len(Trajectories.from_list([good]).validate(mdp)) == 1
    demonstrations = Trajectories.from_list([good, bad, good])
    with pytest.raises(InvalidTrajectoryError, match=message):
        demonstrations.validate(mdp)
    if "outside" in message:  # a wrong number must not be counted in another cell
        with pytest.raises(InvalidTrajectoryError, match=message):
            demonstrations.counts(4, 2)


# ---------------------------------------------------------------- sampling


@given(mdps(terminals=(1, 2)), SEEDS)
def test_samples_are_possible_and_repeatable(mdp, seed):
    policy = random_policy(mdp, seed)
    runs = [
        sample_trajectories(mdp, policy, 20, 7, np.random.default_rng(seed)).validate(mdp)
        for _ in range(2)
    ]
    np.testing.assert_array_equal(runs[0].states, runs[1].states)
    np.testing.assert_array_equal(runs[0].actions, runs[1].actions)
    assert len(runs[0]) == 20
    for states, actions in runs[0]:
        assert 1 <= len(actions) <= 7
        assert mdp.start[states[0]] > 0
        assert (policy[states[:-1], actions] > 0).all()
        assert not mdp.terminal[states[:-1]].any()
        assert len(actions) == 7 or mdp.terminal[states[-1]]


def test_samples_have_the_right_frequencies():
    mdp = random_mdp(3, 5, 3, n_terminal=1, n_start=2, discount=1.0)
    horizon, n = 4, 40_000
    policy = random_policy(mdp, 1, horizon)
    sampled = sample_trajectories(mdp, policy, n, horizon, np.random.default_rng(0))
    for t in range(horizon):
        here = sampled.steps == t
        seen = np.bincount(
            sampled.acting_states[here] * 3 + sampled.actions[here], minlength=15
        ).astype(float)
        exact = planning.occupancy_by_time(mdp, policy, horizon)[t].ravel() * n
        assert (seen[exact == 0] == 0).all()
        seen, exact = np.append(seen, n - seen.sum()), np.append(exact, n - exact.sum())
        likely = exact > 1e-6
        assert stats.chisquare(seen[likely], exact[likely]).pvalue > 1e-3
    # where a move leads, whatever came before
    pairs = sampled.acting_states * 3 + sampled.actions
    after = np.delete(sampled.states, np.cumsum(np.append(0, sampled.lengths[:-1] + 1)))
    for row in np.flatnonzero(np.bincount(pairs, minlength=15) > 500):
        seen = np.bincount(after[pairs == row], minlength=5).astype(float)
        exact = mdp.dense().reshape(15, 5)[row]
        assert (seen[exact == 0] == 0).all()
        if (exact > 0).sum() > 1:
            keep = exact > 0
            assert stats.chisquare(seen[keep], exact[keep] * seen.sum()).pvalue > 1e-4


def test_empirical_counts_tend_to_the_occupancy():
    mdp = random_mdp(5, 4, 2, discount=0.8)
    policy = random_policy(mdp, 2)
    sampled = sample_trajectories(mdp, policy, 50_000, 4, np.random.default_rng(1))
    exact = enumerated_occupancy(mdp, policy, 4)
    np.testing.assert_allclose(sampled.counts(4, 2, discount=0.8), exact, atol=0.015)


def test_sampling_refuses():
    mdp = random_mdp(0)
    rng, policy = np.random.default_rng(0), random_policy(mdp, 0)
    for n, horizon in ((0, 3), (3, 0), (3, -1)):
        with pytest.raises(InvalidHyperparameterError, match="must be 1 or more"):
            sample_trajectories(mdp, policy, n, horizon, rng)
    with pytest.raises(InvalidPolicyError, match="2 time steps; horizon 3"):
        sample_trajectories(mdp, random_policy(mdp, 0, horizon=2), 1, 3, rng)
    at_the_end = TabularMDP(
        mdp.transitions, mdp.reward, np.array([0.5, 0, 0, 0.5]), 0.9, mdp.terminal
    )
    with pytest.raises(InvalidTrajectoryError, match="weight on a terminal state"):
        sample_trajectories(at_the_end, policy, 1, 3, rng)


# ---------------------------------------------------------------- Gymnasium

TOYS = {
    "FrozenLake-v1": dict(extra=0, ends=5),
    "CliffWalking-v1": dict(extra=0, ends=1),
    "CliffWalkingSlippery-v1": dict(extra=0, ends=1),
    "Taxi-v4": dict(extra=1, ends=None),
}


@pytest.fixture(scope="module", params=TOYS)
def toy(request):
    env = gymnasium.make(request.param)
    yield env, TOYS[request.param]
    env.close()


def test_gymnasium_tables_give_the_textbook_values(toy):
    env, facts = toy
    mdp = TabularMDP.from_gymnasium(env, discount=0.97)
    n_states = env.observation_space.n
    assert mdp.n_states == n_states + facts["extra"]
    if facts["ends"] is not None:
        assert mdp.terminal.sum() == facts["ends"]
    exact = gymnasium_values(env, 0.97)
    alive = np.flatnonzero(~mdp.terminal)
    for solver in (planning.value_iteration, planning.policy_iteration):
        got = solver(mdp, tolerance=1e-10).values
        np.testing.assert_allclose(got[alive], exact[alive], atol=1e-9)
        assert not got[mdp.terminal].any()
    np.testing.assert_allclose(mdp.start[:n_states], env.unwrapped.initial_state_distrib)


def test_taxi_has_one_extra_end_and_its_states_keep_their_numbers():
    with gymnasium.make("Taxi-v4") as env:
        mdp = TabularMDP.from_gymnasium(env, discount=0.9)
        assert mdp.n_states == 501 and np.flatnonzero(mdp.terminal).tolist() == [500]
        drops = mdp.dense()[:, :, 500]
        table = env.unwrapped.P
        for s, a in np.ndindex(500, 6):
            assert drops[s, a] == sum(p for p, _, _, end in table[s][a] if end)
        assert (drops > 0).sum() >= 4
        # by hand: passenger inside, taxi at the destination (R, row 0, column 0): drop off for 20
        at_goal = env.unwrapped.encode(0, 0, 4, 0)
        assert planning.value_iteration(mdp).values[at_goal] == pytest.approx(20.0)


def test_returns_in_the_environment_match_the_plan(toy):
    env, _ = toy
    discount, n = 0.9, 300
    mdp = TabularMDP.from_gymnasium(env, discount=discount)
    policy = planning.value_iteration(mdp).policy
    rng = np.random.default_rng(0)
    returns = []
    for episode in range(n):
        state, _ = env.reset(seed=episode)
        total, weight, over = 0.0, 1.0, False
        while not over and weight > 1e-5:
            action = int(rng.choice(mdp.n_actions, p=policy[state]))
            state, reward, over, _, _ = env.unwrapped.step(action)
            total, weight = total + weight * reward, weight * discount
        returns.append(total)
    exact = planning.expected_return(mdp, policy)
    assert abs(np.mean(returns) - exact) <= 4 * np.std(returns) / np.sqrt(n) + 1e-3


class Table:
    """Something with Gymnasium's table, written by hand."""

    def __init__(self, table, start):
        self.P, self.initial_state_distrib = dict(enumerate(table)), np.array(start)
        self.unwrapped = self


def test_duplicate_successors_are_added():
    env = Table([{0: [(0.25, 0, 4.0, False), (0.25, 0, 8.0, False), (0.5, 1, 0.0, True)]}], [1.0])
    env.P[1] = {0: [(1.0, 1, 5.0, True)]}
    env.initial_state_distrib = np.array([1.0, 0.0])
    mdp = TabularMDP.from_gymnasium(env, discount=0.5)
    np.testing.assert_array_equal(mdp.dense()[0, 0], [0.5, 0.5])
    assert mdp.reward[0, 0] == 3.0 and mdp.terminal.tolist() == [False, True]
    assert planning.value_iteration(mdp).values[0] == pytest.approx(3.0 / 0.75)


def test_a_start_state_goes_on_even_if_episodes_also_end_in_it():
    """Out and home again: the same state begins and ends an episode."""
    env = Table(
        [{0: [(1.0, 1, 1.0, False)]}, {0: [(1.0, 0, 2.0, True)]}],
        [1.0, 0.0],
    )
    mdp = TabularMDP.from_gymnasium(env, discount=0.5)
    assert mdp.terminal.tolist() == [False, False, True]
    assert planning.expected_return(mdp, np.ones((3, 1))) == pytest.approx(1.0 + 0.5 * 2.0)


def test_an_end_that_only_an_ended_state_leaves_stays_an_end():
    """2 is entered alive, but only from 1, which is over: 1 and 2 both go by the table."""
    env = Table(
        [
            {0: [(1.0, 1, 1.0, True)]},
            {0: [(1.0, 2, 9.0, False)]},
            {0: [(1.0, 2, 0.0, True)]},
        ],
        [1.0, 0.0, 0.0],
    )
    mdp = TabularMDP.from_gymnasium(env, discount=0.5)
    assert mdp.terminal.tolist() == [False, True, True]
    assert planning.expected_return(mdp, np.ones((3, 1))) == 1.0


def test_an_environment_without_a_table_is_refused():
    with gymnasium.make("CartPole-v1") as env, pytest.raises(InvalidMDPError, match="no table `P`"):
        TabularMDP.from_gymnasium(env)


@pytest.mark.parametrize("name", ["FrozenLake-v1", "CliffWalking-v1"])
def test_renumbered_gymnasium_worlds_have_renumbered_plans(name):
    with gymnasium.make(name) as env:
        mdp = TabularMDP.from_gymnasium(env, discount=0.95)
    other, states, actions = shuffle(mdp, 7)
    plan, renamed = planning.policy_iteration(mdp), planning.policy_iteration(other)
    np.testing.assert_allclose(renamed.values, plan.values[states], atol=1e-9)
    np.testing.assert_allclose(renamed.policy, plan.policy[np.ix_(states, actions)], atol=1e-9)


def test_messages_tell_what_to_do():
    with pytest.raises(NotStochasticError) as caught:
        TabularMDP.create(changed(world(), (0, 0), 0.0), np.zeros(3))
    assert re.search("Normalise the row, or list the state in `terminal`", str(caught.value))


# ---------------------------------------------------------------- malformed tables

ROW = [(1.0, 0, 0.0, False)]
GOOD = {0: {0: ROW, 1: [(1.0, 1, 2.0, True)]}, 1: {0: ROW, 1: ROW}}


def with_entry(entry):
    return {**GOOD, 0: {0: [entry], 1: ROW}}


class Bare:
    """Only the attributes that are given."""

    def __init__(self, **attributes):
        self.__dict__.update(attributes)


BAD_TABLES = {
    "fewer actions in state 0": (
        {0: {0: ROW}, 1: {0: ROW, 1: ROW}},
        "state 0 has no action 1: it has 1 of the 2 actions that state 1 has",
    ),
    "fewer actions in state 1": ({**GOOD, 1: {0: ROW}}, "state 1 has no action 1"),
    "no action in the end": ({**GOOD, 1: {}}, "state 1 has no action 0"),
    "states from 1": ({1: GOOD[0], 2: GOOD[1]}, "numbered 1 to 2, but no state 0"),
    "a gap in states": ({0: GOOD[0], 2: GOOD[1]}, "but no state 1"),
    "actions from 1": (
        {**GOOD, 1: {1: ROW, 2: ROW}},
        r"P\[1\] has 2 actions, numbered 1 to 2, but no action 0",
    ),
    "tuple keys": ({(0, 0): GOOD[0], (0, 1): GOOD[1]}, r"P has the key \(0, 0\).*Number the state"),
    "string keys": ({"a": GOOD[0], "b": GOOD[1]}, "P has the key 'a'"),
    "fractional keys": ({0.5: GOOD[0], 1.5: GOOD[1]}, "P has the key 0.5"),
    "bool keys": ({**GOOD, 0: {False: ROW, True: ROW}}, r"P\[0\] has the key False"),
    "successor beyond": (with_entry((1.0, 2, 0.0, False)), r"state 0, action 0.*2 is outside 0..1"),
    "successor below": (with_entry((1.0, -1, 0.0, False)), "next state -1 is outside"),
    "successor fractional": (with_entry((1.0, 0.5, 0.0, False)), "0.5 is not a whole number"),
    "successor a tuple": (with_entry((1.0, (0, 0), 0.0, False)), "is not a whole number"),
    "successor bool": (with_entry((1.0, True, 0.0, 1)), "next state True is not a whole number"),
    "successor NaN": (with_entry((1.0, np.nan, 0.0, False)), "not a whole number"),
    "sum": (with_entry((0.9, 0, 0.0, False)), r"P\[0\]\[0\].*probabilities sum to 0.9, not 1"),
    "sum of an end": ({**GOOD, 1: {0: [(0.5, 0, 0.0, False)], 1: ROW}}, "state 1, action 0.*0.5"),
    "negative": (with_entry((-1.0, 0, 0.0, False)), "-1.0 is not a probability"),
    "probability NaN": (with_entry((np.nan, 0, 0.0, False)), "nan is not a probability"),
    "probability a word": (with_entry(("1", 0, 0.0, False)), "'1' is not a probability"),
    "three parts": (with_entry((1.0, 0, 0.0)), "state 0, action 0.*3 parts; expected the four"),
    "five parts": (with_entry((1.0, 0, 0.0, False, {})), "5 parts"),
    "no tuple": (with_entry(1.0), "an outcome is 1.0"),
    "a bare tuple": ({**GOOD, 0: {0: (1.0, 0, 0.0, False), 1: ROW}}, "an outcome is 1.0"),
    "outcomes None": ({**GOOD, 0: {0: None, 1: ROW}}, "state 0, action 0.*NoneType"),
    "reward NaN": (with_entry((1.0, 0, np.nan, False)), "state 0, action 0.*nan is not a finite"),
    "reward infinite": (with_entry((1.0, 0, -np.inf, False)), "-inf is not a finite"),
    "terminated a word": (with_entry((1.0, 0, 0.0, "no")), "terminated is 'no'"),
    "terminated 2": (with_entry((1.0, 0, 0.0, 2)), "terminated is 2"),
    "no outcome, and it goes on": ({**GOOD, 0: {0: [], 1: ROW}}, "state 0, action 0.*no outcome"),
    "an array": (np.ones((2, 2, 2)) / 2, "type ndarray.*TabularMDP.create"),
    "empty": ({}, "the table P is empty"),
    "no actions": ({0: {}, 1: {}}, "no actions"),
    "a word": ("P", "type str"),
    "a state's word": ({**GOOD, 1: "go"}, r"P\[1\] is of type str"),
}


@pytest.mark.parametrize("name", BAD_TABLES)
def test_a_malformed_table_is_refused_by_state_and_action(name):
    table, message = BAD_TABLES[name]
    with pytest.raises(InvalidMDPError, match=message) as caught:
        TabularMDP.from_gymnasium(Bare(P=table, initial_state_distrib=np.array([1.0, 0.0])))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("start", "message"),
    [
        ([1.0], r"shape \(1,\) for 2 states"),
        ([1.0, 0.0, 0.0], r"shape \(3,\) for 2 states"),
        ([0.5, 0.6], "sum to 1.1"),
        ([2.0, -1.0], "smallest is -1"),
        ([0.0, 0.0], "sum to 0"),
        ([np.nan, 1.0], "of state 0 is nan"),
        ("first", "probabilities, one a state"),
        ([[1.0], [0.0, 1.0]], "probabilities, one a state"),
    ],
)
def test_a_start_that_does_not_fit_the_table_is_refused(start, message):
    with pytest.raises(InvalidMDPError, match=message):
        TabularMDP.from_gymnasium(Bare(P=GOOD, initial_state_distrib=start))


@pytest.mark.parametrize("env", [None, "FrozenLake-v1", 3, Bare(), Bare(P=GOOD), Table])
def test_what_is_no_environment_with_a_table_is_refused(env):
    with pytest.raises(InvalidMDPError, match="no (table `P`|`initial_state_distrib`)"):
        TabularMDP.from_gymnasium(env)


def test_a_ragged_table_is_refused_where_it_once_lost_an_action():
    """State 1 is worth 10 by its second action; the table was once read with one action."""
    table = {
        0: {0: [(1.0, 1, 0.0, False)]},
        1: {0: [(1.0, 0, 0.0, False)], 1: [(1.0, 2, 10.0, True)]},
        2: {0: [(1.0, 2, 0.0, True)], 1: [(1.0, 2, 0.0, True)]},
    }
    env = Bare(P=table, initial_state_distrib=np.array([1.0, 0.0, 0.0]))
    with pytest.raises(InvalidMDPError, match="state 0 has no action 1"):
        TabularMDP.from_gymnasium(env)
    table[0][1] = [(1.0, 0, 0.0, False)]  # the mend that the message names: stay where you are
    values = planning.value_iteration(TabularMDP.from_gymnasium(env, discount=0.5)).values
    np.testing.assert_allclose(values, [5.0, 10.0, 0.0], atol=1e-8)


def test_numpy_numbers_lists_and_any_order_of_keys_are_one_table():
    own = {
        np.int64(1): [ROW, ROW],
        np.int32(0): {
            np.int64(1): [(np.float32(1.0), np.int64(1), np.float64(2.0), np.bool_(True))],
            0: ((np.float64(1.0), 0.0, 0, 0),),
        },
    }
    first = Bare(P=GOOD, initial_state_distrib=np.array([1.0, 0.0]))
    second = Bare(P=own, initial_state_distrib=[np.float32(1.0), 0])
    one, other = (TabularMDP.from_gymnasium(e, discount=0.9) for e in (first, second))
    np.testing.assert_array_equal(one.dense(), other.dense())
    np.testing.assert_array_equal(one.reward, other.reward)
    np.testing.assert_array_equal(one.terminal, other.terminal)


def test_an_outcome_of_probability_zero_says_nothing():
    """(0.0, 0, ..., True) must not make an end of state 0, nor a second end beside it."""
    table = {0: {0: [(1.0, 1, 1.0, False), (0.0, 1, 9.0, True)]}, 1: {0: [(1.0, 0, 1.0, False)]}}
    env = Bare(P=table, initial_state_distrib=[1.0, 0.0])
    mdp = TabularMDP.from_gymnasium(env, discount=0.5)
    assert mdp.n_states == 2 and not mdp.terminal.any()
    assert planning.value_iteration(mdp).values[0] == pytest.approx(2.0)


def test_an_end_may_list_no_outcome():
    env = Bare(P={**GOOD, 1: {0: [], 1: []}}, initial_state_distrib=[1.0, 0.0])
    assert TabularMDP.from_gymnasium(env).terminal.tolist() == [False, True]


@pytest.mark.parametrize(
    "parts",
    [
        dict(transitions=[[[1.0], [0.5, 0.5]]]),
        dict(transitions=None),
        dict(transitions="P"),
        dict(transitions=GOOD),
        dict(transitions=world() + 0j),
        dict(transitions=sparse.csr_array(world().reshape(6, 3) + 0j)),
        dict(reward=[[1.0], [1.0, 2.0], [0.0]]),
        dict(reward="high"),
        dict(reward=np.ones(3) + 1j),
        dict(discount="0.9"),
        dict(discount=None),
        dict(discount=[0.9]),
        dict(start=1.5),
        dict(start="0"),
        dict(start=True),
        dict(start=np.nan),
        dict(start=[[1.0], [0.0, 0.0]]),
        dict(start=3),
        dict(terminal=[0.5]),
        dict(terminal=["2"]),
        dict(terminal=[None]),
        dict(terminal=[-1]),
    ],
    ids=str,
)
def test_create_refuses_what_can_be_read_in_two_ways(parts):
    parts = {"transitions": world(), "reward": np.zeros(3), **parts}
    with pytest.raises(InvalidMDPError) as caught:
        TabularMDP.create(parts.pop("transitions"), parts.pop("reward"), **parts)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("states", "actions"), [([0, 0, 1], [0, 1]), ([0, 1], [0, 1]), ([0, 1, 2], [0, 2])]
)
def test_renumbering_takes_each_number_once(states, actions):
    with pytest.raises(InvalidMDPError, match="once"):
        random_mdp(0, 3, 2).permute(states, actions)


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        (([0, 1.5], [0]), "states of trajectory 1 must be a flat list of whole numbers"),
        (([0, 1], [0.5]), "actions of trajectory 1"),
        (([0, np.nan], [0]), "states of trajectory 1"),
        ((["0", "1"], [0]), "states of trajectory 1"),
        (([[0], [1, 2]], [0]), "states of trajectory 1"),
        (([[0, 1], [1, 2]], [0]), "states of trajectory 1"),
        ((3, [0]), "states of trajectory 1"),
        (([0, 1],), "trajectory 1 must be a pair"),
        (4, "trajectory 1 must be a pair"),
    ],
)
def test_a_trajectory_of_no_whole_numbers_is_refused(pair, message):
    with pytest.raises(InvalidTrajectoryError, match=message):
        Trajectories.from_list([([0, 1.0], [0]), pair])


def test_lengths_must_add_up():
    with pytest.raises(InvalidTrajectoryError, match="expected 4 and 3"):
        Trajectories(np.array([0, 1, 2]), np.array([0, 0, 0]), np.array([3]))
    with pytest.raises(InvalidTrajectoryError, match="add up"):
        Trajectories(np.array([0, 1]), np.array([0]), np.array([2, -1]))


@pytest.mark.parametrize("policy", [[[1.0], [0.5, 0.5]], "left", None])
def test_what_is_no_array_is_no_policy(policy):
    with pytest.raises(InvalidPolicyError):
        check_policy(random_mdp(0, 2, 2), policy)


JUNK = [None, "x", np.nan, [[1], [1, 2]], {}, 3.5, -1, object(), [None], np.ones((2, 2, 2)), 1 + 2j]
READERS = {
    "transitions": lambda x: TabularMDP.create(x, np.zeros(3)),
    "discount": lambda x: random_mdp(0).with_discount(x),
    "states": lambda x: random_mdp(0).permute(x, [0, 1]),
    "policy": lambda x: check_policy(random_mdp(0), x),
    "trajectories": Trajectories.from_list,
    "trajectory": lambda x: Trajectories.from_list([(x, x)]),
    "features": lambda x: two().feature_expectations(x, 2),
    "environment": TabularMDP.from_gymnasium,
    "walls": lambda x: envs.gridworld(3, 3, walls=x) if x not in ({},) else TabularMDP.create(x, 0),
    "cell rewards": lambda x: envs.gridworld(3, 3, state_reward=[x]),
    "start cell": lambda x: envs.gridworld(3, 3, start=x or "none"),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("junk", JUNK, ids=lambda x: type(x).__name__)
def test_junk_is_refused_by_name_and_in_one_line(reader, junk):
    if isinstance(junk, np.ndarray) and reader in ("walls", "start cell"):
        junk = junk.tolist()
    with pytest.raises(IrlbookError) as caught:
        READERS[reader](junk)
    assert "\n" not in str(caught.value)
