"""The enumerable language model: KL-regularised control against closed forms over responses.

Chapter 3's identity: the optimum of E[r] - beta KL(pi || pi_ref) is pi_ref exp(r / beta) / Z.
"""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp

from irlbook import planning
from irlbook.errors import (
    InvalidHyperparameterError,
    InvalidPolicyError,
    NotFiniteError,
    ShapeError,
)
from irlbook.lm.enumerable import EnumerableLM
from irlbook.metrics import kl_divergence


def model(n_tokens=3, max_length=3, seed=0, forbid=0.0):
    """Random next-token probabilities that depend on the whole prefix."""
    rng = np.random.default_rng(seed)

    def probabilities(prefixes):
        weight = rng.exponential(size=(len(prefixes), n_tokens))
        weight *= rng.random(weight.shape) >= forbid
        weight[:, -1] += 0.01
        return weight / weight.sum(axis=1, keepdims=True)

    tokens = [*"abcdefg"[: n_tokens - 1], "<end>"]
    return EnumerableLM.create(tokens, max_length, probabilities)


def all_responses(n_tokens, max_length):
    """Every response as a tuple of token numbers, by itertools."""
    end = n_tokens - 1
    for length in range(1, max_length + 1):
        for body in product(range(end), repeat=length - 1):
            yield (*body, end)
    yield from product(range(end), repeat=max_length)


def response(lm, state):
    return tuple(int(k) for k in lm.prefixes[state, : lm.lengths[state]])


SIZES = [(2, 1), (2, 5), (3, 3), (4, 2)]


@pytest.mark.parametrize(("n_tokens", "max_length"), SIZES)
def test_the_tree_holds_every_response_once(n_tokens, max_length):
    lm = model(n_tokens, max_length)
    got = [response(lm, s) for s in lm.responses]
    assert len(got) == len(set(got)) and set(got) == set(all_responses(n_tokens, max_length))
    assert lm.lengths[0] == 0 and (np.diff(lm.lengths) >= 0).all()  # breadth first
    behind = np.arange(max_length) >= lm.lengths[:, None]
    assert (lm.prefixes[behind] == -1).all() and (lm.prefixes[~behind] >= 0).all()
    for state in range(lm.n_states):
        for token, child in enumerate(lm.children[state]):
            if child >= 0:
                assert response(lm, child) == (*response(lm, state), token)


@pytest.mark.parametrize(("n_tokens", "max_length"), SIZES)
def test_sequence_probabilities_are_products_and_sum_to_one(n_tokens, max_length):
    lm = model(n_tokens, max_length, seed=1)
    log_p = lm.sequence_log_probabilities()
    assert logsumexp(log_p) == pytest.approx(0.0, abs=1e-12)
    state_of = {response(lm, s): s for s in range(lm.n_states)}
    for state, got in zip(lm.responses, log_p, strict=True):
        tokens = response(lm, state)
        steps = [lm.policy[state_of[tokens[:t]], tokens[t]] for t in range(len(tokens))]
        assert got == pytest.approx(np.log(steps).sum(), abs=1e-12)


@settings(max_examples=25)
@given(
    st.sampled_from(SIZES),
    st.integers(0, 10**6),
    st.sampled_from([0.05, 1.0, 20.0]),
    st.booleans(),
)
def test_the_kl_optimum_is_the_tilted_reference(size, seed, beta, forbid):
    """Soft planning on the token tree = pi_ref exp(r / beta) / Z over whole responses."""
    lm = model(*size, seed=seed, forbid=0.5 * forbid)
    reward = np.random.default_rng(seed).normal(size=len(lm.responses))
    log_ref = lm.sequence_log_probabilities()
    log_z = logsumexp(log_ref + reward / beta)
    world = lm.mdp(reward)
    for solver in (
        planning.soft_policy_iteration,
        planning.soft_value_iteration,
        lambda m, **k: planning.soft_backward_induction(m, size[1], **k),
    ):
        plan = solver(world, beta=beta, reference=lm.policy)
        values, policy = plan.values, plan.policy
        if policy.ndim == 3:  # a state of length t is reached at time t only
            values = values[0]
            policy = policy[np.minimum(lm.lengths, size[1] - 1), np.arange(lm.n_states)]
        got = np.exp(lm.sequence_log_probabilities(policy))
        np.testing.assert_allclose(got, np.exp(log_ref + reward / beta - log_z), atol=1e-12)
        assert values[0] == pytest.approx(beta * log_z, abs=1e-12 * max(1, beta))
    optimum = np.exp(log_ref + reward / beta - log_z)
    gained = optimum @ reward - beta * kl_divergence(optimum, np.exp(log_ref))
    assert gained == pytest.approx(beta * log_z, abs=1e-10 * max(1, beta))


def test_the_value_of_a_prefix_is_its_own_partition_function():
    lm = model(3, 3)
    beta, reward = 0.7, np.random.default_rng(1).normal(size=len(lm.responses))
    values = planning.soft_policy_iteration(lm.mdp(reward), beta=beta, reference=lm.policy).values
    log_ref = lm.sequence_log_probabilities()
    reach = np.full(lm.n_states, 0.0)
    for state in range(lm.n_states):
        for token, child in enumerate(lm.children[state]):
            if child >= 0:
                reach[child] = reach[state] + np.log(lm.policy[state, token])
    answers = [response(lm, s) for s in lm.responses]
    for state in np.flatnonzero(lm.children[:, 0] >= 0):
        prefix = response(lm, state)
        below = [i for i, y in enumerate(answers) if y[: len(prefix)] == prefix]
        exact = beta * logsumexp(log_ref[below] - reach[state] + reward[below] / beta)
        assert values[state] == pytest.approx(exact, abs=1e-12)


def test_temperature_goes_from_the_best_response_to_the_reference():
    lm = model(3, 3, seed=2)
    reward = np.random.default_rng(3).normal(size=len(lm.responses))
    log_ref = lm.sequence_log_probabilities()
    earned, price = [], []
    for beta in (1e-3, 0.1, 0.3, 1.0, 3.0, 10.0, 1e6):
        plan = planning.soft_policy_iteration(lm.mdp(reward), beta=beta, reference=lm.policy)
        p = np.exp(lm.sequence_log_probabilities(plan.policy))
        earned.append(p @ reward)
        price.append(kl_divergence(p, np.exp(log_ref)))
    assert (np.diff(earned) < 0).all() and (np.diff(price) < 0).all()
    assert earned[0] == pytest.approx(reward.max(), abs=1e-9)
    assert earned[-1] == pytest.approx(np.exp(log_ref) @ reward, abs=1e-5)
    assert price[-1] == pytest.approx(0.0, abs=1e-9)
    assert price[0] == pytest.approx(-log_ref[reward.argmax()], abs=1e-9)


def test_hard_planning_finds_the_best_response():
    lm = model(3, 4)
    reward = np.random.default_rng(0).normal(size=len(lm.responses))
    for solver in (planning.value_iteration, planning.policy_iteration):
        assert solver(lm.mdp(reward)).values[0] == pytest.approx(reward.max())


def test_occupancies_of_responses_are_their_probabilities():
    lm = model(3, 3)
    world = lm.mdp(np.zeros(len(lm.responses)))
    rho = planning.occupancy_measure(world, lm.policy)
    arrive = np.zeros(lm.n_states)
    live = np.flatnonzero(lm.children[:, 0] >= 0)
    np.add.at(arrive, lm.children[live].ravel(), rho[live].ravel())
    np.testing.assert_allclose(
        arrive[lm.responses], np.exp(lm.sequence_log_probabilities()), atol=1e-12
    )
    assert rho.sum() == pytest.approx(
        np.exp(lm.sequence_log_probabilities()) @ lm.lengths[lm.responses]
    )


def test_text_and_prefixes_are_readable():
    lm = model(3, 2)
    assert [lm.text(s) for s in range(4)] == ["", "a", "b", ""]
    assert {lm.text(s) for s in lm.responses} == {"", "a", "b", "a a", "a b", "b a", "b b"}


def test_a_model_sees_its_prefixes():
    seen = []

    def probabilities(prefixes):
        seen.append(prefixes.copy())
        return np.full((len(prefixes), 3), 1 / 3)

    EnumerableLM.create("abc", 3, probabilities)
    assert [p.shape for p in seen] == [(1, 0), (2, 1), (4, 2)]
    assert seen[2].tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]


@pytest.mark.parametrize(
    ("tokens", "length", "rows", "error", "message"),
    [
        ("a", 2, None, InvalidHyperparameterError, "two tokens or more"),
        ("abc", 0, None, InvalidHyperparameterError, "max_length >= 1"),
        ("abcdefgh", 9, None, InvalidHyperparameterError, "limit is 2,000,000. Use fewer tokens"),
        ("abc", 2, np.ones((1, 2)) / 2, InvalidPolicyError, r"\(1, 2\) for 1 prefixes"),
        ("abc", 2, np.ones((1, 3)), InvalidPolicyError, "sum to 1 in each row"),
        ("abc", 2, np.array([[1.5, -0.5, 0.0]]), InvalidPolicyError, "sum to 1"),
        ("abc", 2, np.full((1, 3), np.nan), InvalidPolicyError, "sum to 1"),
    ],
)
def test_create_refuses(tokens, length, rows, error, message):
    with pytest.raises(error, match=message):
        EnumerableLM.create(tokens, length, lambda prefixes: rows)


def test_rewards_are_checked():
    lm = model(3, 2)
    with pytest.raises(ShapeError, match=r"response_reward has shape \(3,\); expected \(7,\)"):
        lm.mdp(np.zeros(3))
    with pytest.raises(NotFiniteError):
        lm.mdp(np.full(7, np.nan))
