"""A family of learned claims: Holm's correction, both sides, and a text that must agree."""

import numpy as np
import pytest

from irlbook.claims import ON_SOME, Claims, holm
from irlbook.errors import ClaimFailed


def family(**options):
    claims = Claims("chapter 99", **options)
    claims.paired("up", [1.0, 1.1, 0.9, 1.0, 1.05])
    claims.paired("down", [-2.0, -2.2, -1.9, -2.1, -2.05])
    claims.paired("nothing", [0.3, -0.2, 0.1, -0.4, 0.2])
    return claims


TEXT = {"up": "greater", "down": "less", "nothing": "not established"}


def test_holm_on_an_example_worked_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.6, 0.7]) == pytest.approx([1.0, 1.0])


def test_under_the_null_any_claim_is_established_in_a_twentieth_of_the_families():
    rng, wrong, families = np.random.default_rng(0), 0, 800
    for _ in range(families):
        claims = Claims("null")
        for k in range(6):
            claims.paired(str(k), rng.normal(size=6))
        wrong += any(side != "not established" for side in claims.sides().values())
    assert abs(wrong / families - 0.05) < 4 * (0.05 * 0.95 / families) ** 0.5


def test_a_text_that_agrees_is_printed(capsys):
    family().conclude(TEXT)
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "3 claims, one family, Holm at 0.05:"
    assert said[1] == "ok: up; 5 seeds"
    assert said[2].startswith("the other way round: down")
    assert said[3] == "not established: nothing; 5 seeds"


@pytest.mark.parametrize(
    "changes",
    [{"nothing": "greater"}, {"up": "less"}, {"up": "not established"}, {"down": "greater"}],
)
def test_a_text_that_says_more_or_less_than_the_family_stops(changes):
    with pytest.raises(ClaimFailed, match=next(iter(changes))):
        family().conclude(TEXT | changes)


@pytest.mark.parametrize("name", ["up", "a little"])
def test_what_processors_disagree_about_is_printed_the_same_by_both(name, capsys):
    own = family()
    own.paired("a little", [0.3, -0.2, 0.1, -0.1, 0.2])
    text = TEXT | {"a little": "not established"}
    own.conclude(text | {name: ON_SOME})
    assert f"greater on some processors: {name}; 5 seeds" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["down", "below zero"])
def test_what_is_greater_on_some_processors_is_greater_here_if_only_by_its_mean(name):
    own = family()
    own.paired("below zero", [-0.3, 0.2, -0.1, 0.1, -0.2])
    with pytest.raises(ClaimFailed, match=name):
        own.conclude(TEXT | {"below zero": "not established", name: ON_SOME})


def test_of_another_model_a_difference_is_reported(capsys):
    family(ours=False).conclude(TEXT | {"nothing": "greater"})
    assert (
        "not established: nothing; 5 seeds (the book's model: greater)" in capsys.readouterr().out
    )


def test_a_claim_left_out_of_the_text_stops():
    with pytest.raises(ClaimFailed, match="nothing"):
        family().conclude({"up": "greater", "down": "less"})


def test_a_correction_can_take_a_claim_away():
    """p = .03 alone is established, and beside two idle claims it is not."""
    values = [0.2, 1.0, 0.4, 0.9, 0.1]
    alone, beside = Claims("a"), Claims("b")
    alone.paired("x", values)
    p = alone.made[0].p
    beside.paired("x", values)
    beside.paired("idle", [0.3, -0.2, 0.1, -0.4, 0.2])
    beside.paired("idle too", [0.1, -0.2, 0.3, -0.4, 0.2])
    assert 0.05 / 3 < p < 0.05
    assert alone.sides()["x"] == "greater" and beside.sides()["x"] == "not established"


@pytest.mark.parametrize("x, y", [([1, 2], 0), ([1, 2, np.nan], 0), ([1, 2, 3], [1, 2]), (1.0, 0)])
def test_what_is_no_comparison_over_seeds_is_refused(x, y):
    with pytest.raises(ClaimFailed, match="three seeds"):
        Claims("c").paired("x", x, y)


def test_what_another_model_breaks_is_not_established(capsys):
    claims = Claims("c", ours=False)
    claims.paired("broken", [1.0, 2.0, np.nan])
    claims.paired("whole", [1.0, 1.1, 1.2])
    assert claims.sides() == {"broken": "not established", "whole": "greater"}
    claims.conclude({"broken": "greater", "whole": "greater"})
    assert "not established: broken; 3 seeds (the book's model: greater)" in capsys.readouterr().out


def test_without_spread_the_answer_is_plain():
    claims = Claims("c")
    claims.paired("one", [1.0, 1.0, 1.0])
    claims.paired("zero", [0.0, 0.0, 0.0])
    claims.paired("raw", [2.0, 1.0, 4.0], [1.0, 1.0, 2.0])
    one, zero, raw = claims.made
    assert (one.p, zero.p) == (0.0, 1.0)
    assert (raw.mean, raw.lowest, raw.highest) == (1.0, 0.0, 2.0)


def test_the_raw_figures_are_shown(capsys):
    family().show()
    assert "5 seeds" in capsys.readouterr().out


def test_seeds_that_are_no_pairs_are_compared_by_welch():
    from scipy.stats import ttest_ind

    x, y = [1.0, 2.0, 3.0, 5.0], [0.0, 0.5, 0.2]
    claims = Claims("c")
    claims.independent("x above y", x, y)
    claim = claims.made[0]
    assert claim.p == ttest_ind(x, y, equal_var=False).pvalue
    assert claim.seeds == "4 and 3 seeds" and claim.mean == pytest.approx(2.75 - 0.7 / 3)
    claims.independent("runs", x, y, of="runs")
    assert claims.made[1].seeds == "4 and 3 runs"


def test_overlapping_splits_do_not_establish_what_luck_of_one_data_set_would():
    """Two halves of noise: splits of one set agree with each other, and the plain t is fooled."""
    rng, plain, corrected, sets = np.random.default_rng(0), 0, 0, 300
    for _ in range(sets):
        values = rng.normal(size=100)  # one data set of a true mean of nothing
        means = [rng.permutation(values)[:20].mean() for _ in range(10)]
        for kind in ("plain", "corrected"):
            claims = Claims("null")
            if kind == "plain":
                claims.paired("a", means)
                plain += claims.sides()["a"] != "not established"
            else:
                claims.over_splits("a", means, held_out=0.2)
                corrected += claims.sides()["a"] != "not established"
    assert plain / sets > 0.15 and corrected / sets < 0.08


def test_the_corrected_t_on_an_example_worked_by_hand():
    claims = Claims("one")
    claims.over_splits("a", [0.02, 0.04, 0.0, 0.02], held_out=0.2)
    # mean .02, variance .08e-2 / 3; error sqrt(variance * (1/4 + 1/4)); t = 1.732 with 3 degrees
    assert claims.made[0].p == pytest.approx(0.1817, abs=1e-3)


def test_signs_count_seeds_and_nothing_else():
    claims = Claims("a chapter")
    x = np.array([3600.0, 5, 7, 9, 11, 13, 2, 2])  # ties at the end
    claims.signs("x is larger", x, np.array([1.0, 1, 1, 1, 1, 1, 2, 2]))
    claims.signs("y is larger", -x, 100.0)
    claims.signs("all alike", [2.0, 2.0, 2.0], 2.0)
    larger, smaller, alike = claims.made
    assert larger.p == pytest.approx(2 * 0.5**6)  # six of six
    assert larger.mean == pytest.approx(6 / 8)
    assert smaller.p == pytest.approx(2 * 0.5**8) and smaller.mean == -1
    assert alike.p == 1 and alike.mean == 0
