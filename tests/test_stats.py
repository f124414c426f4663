"""Verdicts fail loudly; intervals and p-values agree with closed forms."""

from math import comb

import numpy as np
import pytest

from irlbook import stats
from irlbook.errors import ClaimFailed


def test_verdict_prints_the_claim_without_digits(capsys):
    stats.verdict("gold falls while proxy rises", np.True_, detail="0.31 < 0.35")
    assert capsys.readouterr().out == "ok: gold falls while proxy rises\n"


def test_verdict_fails_with_the_figures():
    with pytest.raises(ClaimFailed, match=r"(?s)gold falls.*measured: 0\.4 against 0\.3"):
        stats.verdict("gold falls", 0.4 < 0.3, detail="0.4 against 0.3")
    with pytest.raises(AssertionError):
        stats.verdict("no detail", False)


@pytest.mark.parametrize("holds", [float("nan"), 1, None, np.array([True]), "yes"])
def test_verdict_refuses_what_is_no_truth_value(holds):
    with pytest.raises(TypeError, match="True or False"):
        stats.verdict("NaN counts as true", holds)


def test_published_table_is_aligned(capsys):
    stats.published_table(
        [
            stats.PublishedResult("Ziebart 2008", "Table 1", 0.7829, "78 %", "agrees"),
            stats.PublishedResult("Ng 1999", "Theorem 1", "equal policies", 1.0, "agrees"),
        ]
    )
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["paper", "where", "theirs", "ours", "verdict"]
    column = lines[0].index("theirs")
    assert [line[column:].split("  ")[0] for line in lines[2:]] == ["0.7829", "equal policies"]
    assert all(line == line.rstrip() for line in lines)


def test_published_table_without_rows_is_a_header(capsys):
    stats.published_table([])
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_bootstrap_matches_the_normal_interval():
    x = np.random.default_rng(1).normal(3.0, 2.0, size=400)
    low, high = stats.bootstrap_ci(x, np.random.default_rng(0), resamples=4000)
    half = 1.959964 * x.std() / np.sqrt(len(x))
    assert low == pytest.approx(x.mean() - half, abs=0.02)
    assert high == pytest.approx(x.mean() + half, abs=0.02)


def test_bootstrap_takes_any_statistic_and_level():
    x = np.random.default_rng(1).normal(size=(50, 3))
    wide = stats.bootstrap_ci(x, np.random.default_rng(0), lambda a: a.max(), 0.99)
    narrow = stats.bootstrap_ci(x, np.random.default_rng(0), lambda a: a.max(), 0.5)
    assert wide[0] <= narrow[0] <= narrow[1] <= wide[1] == x.max()
    assert stats.bootstrap_ci(np.ones(5), np.random.default_rng(0)) == (1.0, 1.0)


@pytest.mark.parametrize(("x", "level"), [([1.0], 0.95), ([1.0, 2.0], 0.0), ([1.0, 2.0], 95)])
def test_bootstrap_refuses(x, level):
    with pytest.raises(ValueError):
        stats.bootstrap_ci(x, np.random.default_rng(0), level=level)


@pytest.mark.parametrize("shift", [10.0, 1e-14])
def test_permutation_of_separated_samples_is_one_in_all_choices(shift):
    x = np.arange(5.0) * shift / 10 + shift
    y = np.arange(5.0) * shift / 10
    rng = np.random.default_rng(0)
    assert stats.permutation_test(x, y, rng, "greater") == 1 / comb(10, 5)
    assert stats.permutation_test(x, y, rng, "two-sided") == 2 / comb(10, 5)
    assert stats.permutation_test(x, y, rng, "less") == 1.0
    assert stats.permutation_test(x, y, rng, "greater", paired=True) == 1 / 2**5
    assert stats.permutation_test(x, y, rng, "two-sided", paired=True) == 2 / 2**5


def test_permutation_by_hand():
    # 6 relabellings of (1, 4 | 2, 3): differences of sums 0, -4, -2, 2, 4, 0 -> four are >= 0
    p = stats.permutation_test([1.0, 4.0], [2.0, 3.0], np.random.default_rng(0), "greater")
    assert p == 4 / 6
    # sign flips of differences (3, -1): sums 2, 4, -4, -2 -> two are >= 2
    p = stats.permutation_test([3.0, 0], [0, 1.0], np.random.default_rng(0), "greater", paired=True)
    assert p == 2 / 4


@pytest.mark.parametrize("paired", [False, True])
def test_drawn_permutations_agree_with_all_of_them(paired):
    rng = np.random.default_rng(3)
    x, y = rng.normal(0.5, 1, size=8), rng.normal(size=8)
    exact = stats.permutation_test(x, y, rng, paired=paired, resamples=20_000)
    drawn = stats.permutation_test(x, y, rng, paired=paired, resamples=200 if paired else 9_000)
    assert drawn == pytest.approx(exact, abs=0.06 if paired else 0.01)
    far = stats.permutation_test(x + 99, y, rng, "greater", paired=paired, resamples=100)
    assert far >= 1 / 101  # never 0


def test_permutation_agrees_with_scipy():
    scipy_stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(5)
    x, y = rng.normal(size=6), rng.normal(size=5)
    theirs = scipy_stats.permutation_test(
        (x, y), lambda a, b: a.mean() - b.mean(), alternative="greater", n_resamples=np.inf
    )
    assert stats.permutation_test(x, y, rng, "greater") == pytest.approx(theirs.pvalue)


@pytest.mark.parametrize(
    ("x", "y", "options", "match"),
    [
        ([], [1.0], {}, "not empty"),
        ([[1.0]], [1.0], {}, "flat"),
        ([np.nan], [1.0], {}, "NaN"),
        ([1.0, 2.0], [1.0], {"paired": True}, "cannot be paired"),
        ([1.0, 2.0], [1.0], {"alternative": "more"}, "use two-sided"),
    ],
)
def test_permutation_refuses(x, y, options, match):
    with pytest.raises(ValueError, match=match):
        stats.permutation_test(x, y, np.random.default_rng(0), **options)


def test_a_verdict_shows_what_it_measured(capsys):
    stats.verdict("gold rises", True, measured="0.22 to 1.41, 8 of 8 seeds")
    assert capsys.readouterr().out == "ok: gold rises [0.22 to 1.41, 8 of 8 seeds]\n"


def test_a_bootstrap_interval_is_that_of_the_draws_by_hand():
    x = np.random.default_rng(0).normal(size=(9, 3))  # a replicate is a row
    low, high = stats.bootstrap_ci(x, np.random.default_rng(1), np.median, level=0.9, resamples=200)
    draws = np.random.default_rng(1).integers(0, 9, size=(200, 9))
    want = np.quantile([np.median(x[draw]) for draw in draws], [0.05, 0.95])
    np.testing.assert_allclose([low, high], want, atol=1e-12)


def test_equal_means_are_no_evidence_however_they_round():
    x, y = [0.3, 0.4, 0.3, 0.3, 0.4, 0.0], [0.3, 0.3, 0.3, 0.4, 0.4, 0.0]
    assert np.mean(x) == pytest.approx(np.mean(y), abs=1e-12)
    assert stats.permutation_test(x, y, np.random.default_rng(0)) == 1.0
