"""What one reward learns from a crowd, distributions of utility, and the published rates."""

import json
import os
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import approx_fprime
from scipy.special import ndtr
from scipy.stats import norm, spearmanr

from irlbook import errors
from irlbook.preferences import hidden_context as hc
from irlbook.preferences import jailbreak_rates as rates


@pytest.fixture
def crowd():
    rng = np.random.default_rng(0)
    return rng.normal(size=(3, 6)), np.array([0.5, 0.3, 0.2])


def test_preferences_of_a_crowd_are_those_of_people_drawn_from_it(crowd):
    utilities, shares = crowd
    p = hc.preference_matrix(utilities, shares, beta=0.7)
    brute = np.zeros((6, 6))
    for share, u in zip(shares, utilities, strict=True):
        for i, j in product(range(6), repeat=2):
            brute[i, j] += share / (1 + np.exp((u[j] - u[i]) / 0.7))
    np.testing.assert_allclose(p, brute, rtol=0, atol=1e-14)
    exact = hc.preference_matrix(utilities, shares)
    np.testing.assert_allclose(
        exact, hc.preference_matrix(utilities, shares, beta=1e-4), rtol=0, atol=1e-9
    )


def test_bradley_terry_orders_a_crowd_by_borda_count_and_not_by_mean_utility():
    broken = 0
    for seed in range(30):
        rng = np.random.default_rng(seed)
        u = rng.normal(size=(3, 7)) * np.array([[0.3], [1.0], [4.0]])
        p, q = hc.preference_matrix(u, beta=0.5), rng.dirichlet(np.ones(7) * 3)
        counts, fitted = hc.borda_counts(p, q), hc.bradley_terry_limit(p, q)
        assert spearmanr(counts, fitted).statistic == pytest.approx(1.0)
        expected = 1 / (1 + np.exp(fitted[None, :] - fitted[:, None])) @ q
        np.testing.assert_allclose(expected, counts, rtol=0, atol=1e-8)  # the optimality condition
        broken += spearmanr(u.mean(axis=0), fitted).statistic < 0.999
    assert broken > 20


@pytest.mark.parametrize(
    "preferences, error, word",
    [
        (np.full((2, 3), 0.5), errors.ShapeError, "expected"),
        ([[0.5, 0.7], [0.4, 0.5]], errors.InvalidPreferencesError, "not 1"),
        ([[0.5, 1.7], [-0.7, 0.5]], errors.InvalidPreferencesError, "from 0 to 1"),
        ([[0.0, 0.7], [0.3, 0.0]], errors.InvalidPreferencesError, "diagonal"),
    ],
)
def test_what_is_no_table_of_preferences_is_refused(preferences, error, word):
    with pytest.raises(error, match=word):
        hc.borda_counts(preferences)


def test_certain_preferences_have_no_limit_without_a_penalty():
    p = hc.preference_matrix([[0.0, 1.0, 2.0]])
    with pytest.raises(errors.SeparablePreferencesError):
        hc.bradley_terry_limit(p)
    assert np.diff(hc.bradley_terry_limit(p, l2=0.01)).min() > 0


def test_a_lottery_is_the_sum_over_its_outcomes():
    rng = np.random.default_rng(1)
    x, c = rng.normal(size=(4, 3)), rng.dirichlet(np.ones(3), size=4)
    p = hc.lottery_preferences(x, c)
    brute = sum(c[0, v] * c[2, w] * (x[0, v] > x[2, w]) for v in range(3) for w in range(3))
    assert p[0, 2] == pytest.approx(brute)
    assert np.diag(p) == pytest.approx(0.5)


def test_normal_preferences_are_those_of_drawn_utilities():
    p = hc.normal_preferences([1.0, 0.2], [0.5, 1.2])
    assert p[0, 1] == pytest.approx(ndtr(0.8 / 1.3))
    rng = np.random.default_rng(0)
    seen = (rng.normal(1.0, 0.5, 40_000) > rng.normal(0.2, 1.2, 40_000)).mean()
    assert p[0, 1] == pytest.approx(seen, abs=0.01)


def test_categorical_preferences_are_a_double_sum():
    q = np.random.default_rng(2).dirichlet(np.ones(5), size=3)
    p = hc.categorical_preferences(q)
    brute = sum(
        q[0, b] * q[1, c] * (1.0 if b > c else 0.5 if b == c else 0.0)
        for b in range(5)
        for c in range(5)
    )
    assert p[0, 1] == pytest.approx(brute)
    hc.check_preferences(p)


@pytest.mark.parametrize("kind", ["normal", "categorical"])
def test_the_gradients_of_the_two_losses(kind, crowd):
    p, rng = hc.preference_matrix(*crowd, beta=0.7), np.random.default_rng(3)
    if kind == "normal":
        x, loss = rng.normal(size=12), lambda x: hc.normal_loss(x, p)
    else:
        x, loss = rng.normal(size=24), lambda x: hc.categorical_loss(x, p, 4)
    found = approx_fprime(x, lambda x: loss(x)[0], 1e-7)
    np.testing.assert_allclose(loss(x)[1], found, rtol=0, atol=1e-6)


def test_the_normal_fit_recovers_means_and_deviations():
    mean, std = np.array([-1.0, -0.2, 0.1, 0.4, 0.7]), np.array([0.5, 0.5, 2.5, 1.0, 0.8])
    m, s = hc.fit_normal_utilities(hc.normal_preferences(mean, std), l2=1e-9)
    unit = np.exp(np.log(std).mean())
    np.testing.assert_allclose(m, (mean - mean.mean()) / unit, rtol=0, atol=0.01)
    np.testing.assert_allclose(s, std / unit, rtol=0, atol=0.03)


def test_the_categorical_fit_explains_what_the_normal_one_cannot():
    values = np.array([[0.0, 0.9], [0.3, 0.3], [0.5, 0.5], [0.1, 0.1], [0.7, 0.7]])
    p = hc.lottery_preferences(values, np.full((5, 2), 0.5), beta=0.05)
    q = hc.fit_categorical_utilities(p, 8, l2=1e-6)
    m, s = hc.fit_normal_utilities(p, l2=1e-6)
    off = [
        np.abs(t - p).max() for t in (hc.categorical_preferences(q), hc.normal_preferences(m, s))
    ]
    assert off[0] < 0.02 and off[0] < off[1]
    assert q[0, :2].sum() > 0.3 and q[0, -2:].sum() > 0.3  # two humps


def test_quantiles_against_scipy_and_against_a_drawn_histogram():
    assert hc.normal_quantile(1.0, 2.0, 0.01) == pytest.approx(norm.ppf(0.01, 1, 2))
    q = np.array([[0.005, 0.095, 0.9], [0.2, 0.3, 0.5]])
    for level in (0.001, 0.005, 0.01, 0.2, 0.3, 0.99):
        found = hc.histogram_quantile(q, level)
        edges, upto = np.arange(4) / 3, np.concatenate([np.zeros((2, 1)), np.cumsum(q, 1)], axis=1)
        want = [np.interp(level, u, edges) for u in upto]
        np.testing.assert_allclose(found, want, rtol=0, atol=1e-12)
    with pytest.raises(errors.InvalidHyperparameterError, match="between 0 and 1"):
        hc.histogram_quantile(q, 1.0)


def test_the_low_tail_is_not_the_high_one():
    """A planted bug, 1 - level for level, turns caution into daring."""
    safe, odd = (0.4, 0.1), (0.5, 1.0)
    low, high = (hc.normal_quantile(*np.array([safe, odd]).T, level) for level in (0.01, 0.99))
    assert low.argmax() == 0 and high.argmax() == 1


# The published rates ------------------------------------------------------------------------------


def test_a_tie_counts_as_jailbroken_and_a_wrong_shape_is_named():
    outputs = np.array([[[1.0], [1.0]], [[1.0], [0.0]], [[0.0], [1.0]]])
    assert rates.jailbroken("base", outputs).tolist() == [True, False, True]
    with pytest.raises(errors.InvalidDataError, match="safe answer first"):
        rates.jailbroken("base", outputs[:, 0])


def test_the_stored_counts_are_the_published_rates():
    found = rates.stored()
    at = found["levels"].index(0.01)
    share = {
        "base": found["by_mean"]["base"]["both"],
        "helpful": found["by_mean"]["base"]["helpful"],
        "harmless": found["by_mean"]["base"]["harmless"],
        "mv": found["by_mean"]["mean_and_variance"]["both"],
        "cat": found["by_mean"]["categorical"]["both"],
        "mv low": found["by_quantile"]["mean_and_variance"][at],
        "cat low": found["by_quantile"]["categorical"][at],
    }
    published = dict(zip(share, (25.1, 52.4, 3.7, 30.5, 32.1, 20.3, 13.4), strict=True))
    assert {k: round(100 * v / found["pairs"], 1) for k, v in share.items()} == published


@pytest.mark.skipif("IRLBOOK_DATA" not in os.environ, reason="needs IRLBOOK_DATA")
def test_the_stored_counts_are_recomputed_from_the_outputs(tmp_path):
    path = Path(os.environ["IRLBOOK_DATA"]) / "jailbreak_rewards" / "rewards.npz"
    if not path.exists():
        pytest.skip("jailbreak_rewards is not in the folder that IRLBOOK_DATA names")
    out = tmp_path / "rates.json"
    assert rates.main([str(path), str(out)]) == 0
    assert json.loads(out.read_text(encoding="utf-8")) == rates.stored()


def test_the_script_says_how_it_is_called(capsys):
    assert rates.main([]) == 2
    assert "REWARDS.npz" in capsys.readouterr().out


# Domains, units, and the script -------------------------------------------------------------------


def test_a_tie_of_a_chooser_without_error_is_a_half_and_a_temperature_is_not_negative():
    assert hc.preference_matrix([[1.0, 1.0], [2.0, 0.0]]).tolist() == [[0.5, 0.75], [0.25, 0.5]]
    for call in (hc.preference_matrix, lambda x, beta: hc.lottery_preferences(x, [[1.0]], beta)):
        with pytest.raises(errors.InvalidHyperparameterError, match="not negative"):
            call([[1.0]], beta=-0.1)


def test_a_lottery_has_a_temperature():
    rng = np.random.default_rng(1)
    x, c = rng.normal(size=(3, 2)), rng.dirichlet(np.ones(2), size=3)
    p = hc.lottery_preferences(x, c, beta=0.6)
    for i, j in product(range(3), repeat=2):
        want = sum(
            c[i, v] * c[j, w] / (1 + np.exp((x[j, w] - x[i, v]) / 0.6))
            for v, w in product(range(2), repeat=2)
        )
        assert p[i, j] == pytest.approx(want)


@pytest.mark.parametrize(
    ("call", "error", "word"),
    [
        (lambda: hc.preference_matrix([1.0, 2.0]), errors.ShapeError, "types, items"),
        (lambda: hc.preference_matrix(np.eye(2), [1.0]), errors.ShapeError, "for 2 types"),
        (lambda: hc.preference_matrix(np.eye(2), [0.5, 0.6]), errors.NotStochasticError, "shares"),
        (lambda: hc.preference_matrix(np.eye(2), [1.5, -0.5]), errors.NotStochasticError, "shares"),
        (lambda: hc.lottery_preferences(np.eye(2), [[1.0]]), errors.ShapeError, "one shape"),
        (lambda: hc.categorical_preferences([1.0]), errors.ShapeError, "expected"),
        (lambda: hc.categorical_preferences([[0.5, 0.6]]), errors.NotStochasticError, "each row"),
        (lambda: hc.categorical_preferences([[1.5, -0.5]]), errors.NotStochasticError, "each row"),
        (lambda: hc.borda_counts([[0.5]], [0.5, 0.5]), errors.ShapeError, "opponents"),
        (lambda: hc.borda_counts([[0.5]], [0.9]), errors.NotStochasticError, "opponents"),
        (
            lambda: hc.borda_counts(np.full((2, 2), 0.5), [1.5, -0.5]),
            errors.NotStochasticError,
            "opponents",
        ),
        (lambda: hc.normal_preferences([0.0], [0.0]), errors.InvalidHyperparameterError, "above 0"),
        (lambda: hc.normal_preferences([0.0], [1.0, 1.0]), errors.ShapeError, "both"),
        (lambda: hc.normal_preferences([[0.0]], [[1.0]]), errors.ShapeError, "both"),
        (
            lambda: hc.fit_categorical_utilities([[0.5]], 1),
            errors.InvalidHyperparameterError,
            "two levels",
        ),
        (
            lambda: hc.normal_quantile(0.0, 1.0, 0.0),
            errors.InvalidHyperparameterError,
            "level is 0",
        ),
    ],
)
def test_what_is_no_crowd_lottery_or_level_is_refused(call, error, word):
    with pytest.raises(error, match=word):
        call()


def test_rounding_is_no_fault_of_a_table():
    p = np.array([[0.5, 0.7 + 4e-10], [0.3, 0.5]])
    assert hc.check_preferences(p) is not None
    with pytest.raises(errors.InvalidPreferencesError, match=r"p\[0, 1\] \+ p\[1, 0\] is 1.1,"):
        hc.check_preferences([[0.5, 0.8], [0.3, 0.5]])


def test_all_opponents_are_equally_likely_if_none_are_named(crowd):
    p, even = hc.preference_matrix(*crowd, beta=0.7), np.full(6, 1 / 6)
    np.testing.assert_allclose(hc.borda_counts(p), p.mean(axis=1))
    limit = hc.bradley_terry_limit(p)
    np.testing.assert_allclose(limit, hc.bradley_terry_limit(p, even), atol=1e-12)
    assert limit.sum() == pytest.approx(0, abs=1e-9)
    # the penalty is one on an average label: slope of the mean log-likelihood = l2 r
    r = hc.bradley_terry_limit(p, l2=0.1)
    expected = 1 / (1 + np.exp(r[None, :] - r[:, None]))
    slope = (p - expected).sum(axis=1) / 36
    np.testing.assert_allclose(slope, 0.1 * r, atol=1e-8)


@pytest.mark.parametrize("kind", ["normal", "categorical"])
def test_the_two_losses_are_the_mean_surprise_of_a_pair(kind, crowd):
    p, rng = hc.preference_matrix(*crowd, beta=0.7), np.random.default_rng(3)
    if kind == "normal":
        x = rng.normal(size=12)
        value, model = hc.normal_loss(x, p)[0], hc.normal_preferences(x[:6], np.exp(x[6:]))
    else:
        x = rng.normal(size=24)
        chances = np.exp(x.reshape(6, 4))
        value = hc.categorical_loss(x, p, 4)[0]
        model = hc.categorical_preferences(chances / chances.sum(axis=1, keepdims=True))
    off = ~np.eye(6, dtype=bool)
    assert value == pytest.approx(-(p * np.log(model))[off].mean())


def test_a_penalty_draws_the_fits_together(crowd):
    p = hc.preference_matrix(*crowd, beta=0.7)
    m, s = hc.fit_normal_utilities(p, l2=1e3)
    assert np.abs(m).max() < 1e-3 and np.abs(s - 1).max() < 1e-3
    q = hc.fit_categorical_utilities(p, 3, l2=1e3)
    np.testing.assert_allclose(q, 1 / 3, atol=1e-3)
    m, s = hc.fit_normal_utilities(p)
    assert m.sum() == pytest.approx(0, abs=1e-9) and np.log(s).sum() == pytest.approx(0, abs=1e-9)
    assert hc.fit_categorical_utilities(p, 2).shape == (6, 2)


def test_a_fit_that_stops_early_says_so(monkeypatch, crowd):
    p, real = hc.preference_matrix(*crowd, beta=0.7), hc.minimize

    def hurried(*args, options, **more):
        return real(*args, options={**options, "maxiter": 1}, **more)

    monkeypatch.setattr(hc, "minimize", hurried)
    with pytest.raises(errors.NotConvergedError, match="raise the penalty"):
        hc.fit_normal_utilities(p)


def test_a_quantile_beyond_rounded_mass_is_in_the_last_bin():
    q = np.array([[0.5, 0.5 - 1e-10]])  # mass adds up to less than the level
    assert hc.histogram_quantile(q, 1 - 1e-12)[0] == pytest.approx(1.0, abs=1e-6)


def outputs_of(kind, rng, pairs=5):
    return rng.normal(size=(pairs, 2, {"base": 1, "mean_and_variance": 2, "categorical": 4}[kind]))


def test_answers_are_ranked_by_mean_or_by_quantile():
    rng = np.random.default_rng(4)
    base, normal, levels = (
        outputs_of(kind, rng) for kind in ("base", "mean_and_variance", "categorical")
    )
    assert np.array_equal(rates.scores("base", base, 0.3), base[..., 0])
    assert np.array_equal(rates.scores("mean_and_variance", normal, None), normal[..., 0])
    found = rates.scores("mean_and_variance", normal, 0.1)
    want = norm.ppf(0.1, normal[..., 0], np.log(1 + np.exp(normal[..., 1])))
    np.testing.assert_allclose(found, want)
    chances = np.exp(levels) / np.exp(levels).sum(axis=-1, keepdims=True)
    found = rates.scores("categorical", levels, None)
    np.testing.assert_allclose(found, chances @ [0, 1 / 3, 2 / 3, 1])
    found = rates.scores("categorical", levels, 0.1)
    for k, side in product(range(5), range(2)):
        upto = np.append(0, np.cumsum(chances[k, side]))
        assert found[k, side] == pytest.approx(np.interp(0.1, upto, np.linspace(0, 1, 5)))


def test_a_file_of_outputs_gives_its_counts(tmp_path):
    rng, kinds = np.random.default_rng(5), ("base", "mean_and_variance", "categorical")
    rewards = {f"{k}_{s}": outputs_of(k, rng, 40) for k in kinds for s in rates.LABELS}
    found = rates.count_jailbroken(rewards)
    assert found["pairs"] == 40 and found["levels"] == list(rates.LEVELS)
    assert found["source"] == rates.SOURCE
    for kind in kinds:
        for labels in rates.LABELS:
            safe, broken = rates.scores(kind, rewards[f"{kind}_{labels}"], None).T
            assert found["by_mean"][kind][labels] == (broken >= safe).sum()
    safe, broken = rewards["base_both"][..., 0].T
    for kind in kinds[1:]:
        for level, count in zip(rates.LEVELS, found["by_quantile"][kind], strict=True):
            one, two = rates.scores(kind, rewards[f"{kind}_both"], level).T
            assert count == (two >= one).sum()
            if level == 0.01:
                against = found["against_base"][kind]
                assert against["only_base"] == ((broken >= safe) & (two < one)).sum()
                assert against["only_cautious"] == ((broken < safe) & (two >= one)).sum()
    np.savez(tmp_path / "rewards.npz", **rewards)
    assert rates.main([str(tmp_path / "rewards.npz"), str(tmp_path / "out.json")]) == 0
    assert json.loads((tmp_path / "out.json").read_text(encoding="utf-8")) == found


@pytest.mark.parametrize(
    "outputs", [np.zeros((3, 3, 1)), np.zeros((3, 2)), np.full((3, 2, 1), np.nan)]
)
def test_outputs_that_are_no_pairs_are_refused(outputs):
    with pytest.raises(errors.InvalidDataError, match="outputs of base have shape"):
        rates.jailbroken("base", outputs)


def test_a_single_item_has_no_utility_to_be_fitted():
    for fit in (hc.fit_normal_utilities, hc.fit_categorical_utilities):
        with pytest.raises(errors.UninformativeDataError, match="a single item"):
            fit([[0.5]])


def test_a_share_or_a_chance_may_be_nothing(crowd):
    utilities, _ = crowd
    alone = hc.preference_matrix(utilities[:1], beta=0.7)
    np.testing.assert_allclose(hc.preference_matrix(utilities, [1.0, 0.0, 0.0], 0.7), alone)
    first = np.eye(6)[0]
    np.testing.assert_allclose(hc.borda_counts(alone, first), alone[:, 0])
    values = np.array([[1.0, 9.0], [2.0, 9.0]])
    assert hc.lottery_preferences(values, [[1.0, 0.0], [1.0, 0.0]]).tolist() == [[0.5, 0], [1, 0.5]]
    assert hc.histogram_quantile([[0.0, 1.0, 0.0]], 0.5).tolist() == [0.5]
