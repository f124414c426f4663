"""Returns to go and GAE against their definitions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irlbook.errors import InvalidHyperparameterError, ShapeError
from irlbook.rl.advantages import gae, returns_to_go, td_errors


def gae_by_definition(rewards, values, next_values, terminated, truncated, discount, lam):
    """sum_l (discount lam)^l delta_{t+l} up to the end of the episode of t: O(T^2), one env."""
    total = len(rewards)
    out = np.zeros(total)
    for t in range(total):
        weight = 1.0
        for k in range(t, total):
            bootstrap = 0.0 if terminated[k] else next_values[k]
            out[t] += weight * (rewards[k] + discount * bootstrap - values[k])
            if terminated[k] or truncated[k]:
                break
            weight *= discount * lam
    return out


def batch(rng, steps=40, p_end=0.15):
    r, v, nv = rng.normal(size=(3, steps))
    kind = rng.choice(3, size=steps, p=[1 - 2 * p_end, p_end, p_end])
    terminated, truncated = kind == 1, kind == 2
    # inside an episode the value after step t is the value before step t + 1
    inside = ~(terminated | truncated)[:-1]
    nv[:-1][inside] = v[1:][inside]
    return r, v, nv, terminated, truncated


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), discount=st.floats(0, 1), lam=st.floats(0, 1))
def test_gae_eq_2_14_equals_the_quadratic_definition(seed, discount, lam):
    data = batch(np.random.default_rng(seed))
    assert data[3].any() or data[4].any()
    fast = gae(*data, discount=discount, lam=lam)
    np.testing.assert_allclose(fast, gae_by_definition(*data, discount, lam), atol=1e-10)


@pytest.mark.parametrize("lam", [0.0, 0.37, 0.95, 1.0])
def test_gae_in_several_environments_is_gae_in_each(lam):
    rng = np.random.default_rng(0)
    columns = [batch(rng) for _ in range(3)]
    stacked = [np.stack(parts, axis=1) for parts in zip(*columns, strict=True)]
    together = gae(*stacked, discount=0.9, lam=lam)
    for i, column in enumerate(columns):
        alone = gae_by_definition(*column, 0.9, lam)
        np.testing.assert_allclose(together[:, i], alone, atol=1e-12)


def test_gae_lambda_0_is_the_td_error_eq_2_13():
    data = batch(np.random.default_rng(1))
    expected = td_errors(*data[:4], 0.9)
    np.testing.assert_allclose(gae(*data, discount=0.9, lam=0.0), expected)


def test_gae_lambda_1_is_return_minus_value_with_the_tail_bootstrapped():
    r, v, nv, terminated, truncated = batch(np.random.default_rng(2))
    ends = np.flatnonzero(terminated | truncated)
    start = 0
    advantages = gae(r, v, nv, terminated, truncated, discount=0.9, lam=1.0)
    for end in ends:
        tail = 0.0 if terminated[end] else nv[end]
        rewards = np.append(r[start : end + 1], tail)
        g = returns_to_go(rewards, 0.9)[:-1]
        np.testing.assert_allclose(advantages[start : end + 1], g - v[start : end + 1])
        start = end + 1


def test_truncation_bootstraps_and_termination_does_not():
    one, none, yes = np.array([1.0]), np.array([False]), np.array([True])
    args = (one, np.array([0.5]), np.array([10.0]))
    assert gae(*args, yes, none, discount=0.9, lam=0.95)[0] == pytest.approx(0.5)
    assert gae(*args, none, yes, discount=0.9, lam=0.95)[0] == pytest.approx(9.5)
    assert gae(*args, none, none, discount=0.9, lam=0.95)[0] == pytest.approx(9.5)


def test_nothing_leaks_over_the_end_of_an_episode():
    r, v, nv, terminated, truncated = batch(np.random.default_rng(3))
    end = int(np.flatnonzero(terminated | truncated)[0])
    before = gae(r, v, nv, terminated, truncated, discount=0.9, lam=0.9)
    r2 = r.copy()
    r2[end + 1 :] += 100.0
    after = gae(r2, v, nv, terminated, truncated, discount=0.9, lam=0.9)
    np.testing.assert_array_equal(before[: end + 1], after[: end + 1])
    assert (np.abs(before - after)[end + 1 :] > 1).all()


@pytest.mark.parametrize("bug", ["next value at t", "no (1 - done) on lam", "terminated ignored"])
def test_known_bugs_of_popular_code_are_caught(bug):
    """The definition tells each of them apart (ARENA_3.0#249 and relatives)."""
    r, v, nv, terminated, truncated = batch(np.random.default_rng(4))
    right = gae_by_definition(r, v, nv, terminated, truncated, 0.9, 0.9)
    none = np.zeros_like(terminated)
    wrong = {
        "next value at t": lambda: gae(r, v, v, terminated, truncated, discount=0.9, lam=0.9),
        "no (1 - done) on lam": lambda: gae(
            r, v, np.where(terminated, 0.0, nv), none, none, discount=0.9, lam=0.9
        ),
        "terminated ignored": lambda: gae(
            r, v, nv, none, terminated | truncated, discount=0.9, lam=0.9
        ),
    }[bug]()
    assert np.abs(wrong - right).max() > 0.1


def test_returns_to_go_eq_2_9_equals_the_sum():
    r = np.random.default_rng(5).normal(size=7)
    expected = [sum(0.8 ** (k - t) * r[k] for k in range(t, 7)) for t in range(7)]
    np.testing.assert_allclose(returns_to_go(r, 0.8), expected)
    assert returns_to_go(np.zeros((0, 2)), 0.5).shape == (0, 2)


def test_bad_input_is_named():
    three, two = np.zeros(3), np.zeros(2)
    flags = np.zeros(3, dtype=bool)
    for i, name in enumerate(("values", "next_values", "terminated", "truncated"), start=1):
        given = [three, three, three, flags, flags]
        given[i] = two
        with pytest.raises(ShapeError, match=rf"^{name} has shape \(2,\), rewards \(3,\)"):
            gae(*given, discount=0.9, lam=0.9)
    for end in (0.0, 1.0):
        gae(three, three, three, flags, flags, discount=end, lam=end)
        assert returns_to_go(np.ones(3), end).tolist() == ([1, 1, 1] if end == 0 else [3, 2, 1])
    with pytest.raises(InvalidHyperparameterError, match="lam"):
        gae(three, three, three, flags, flags, discount=0.9, lam=1.9)
    with pytest.raises(InvalidHyperparameterError, match="discount"):
        returns_to_go(three, -0.1)
