"""The audit of preference pairs: oracles by enumeration, and planted faults."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from irlbook.data.audit import (
    _normal,
    audit_preferences,
    clustered_share,
    label_noise,
    leakage,
    near_duplicates,
    shingles,
)
from irlbook.data.records import Preference
from irlbook.errors import EmptyDataError, InvalidHyperparameterError, ShapeError


def clean(n, rng, prompts=None):
    """Pairs of random texts, of which nothing is to be found."""
    word = np.array([f"w{i}" for i in range(400)])
    text = lambda: " ".join(rng.choice(word, 12))  # noqa: E731
    prompts = prompts or n
    return [Preference(f"prompt {i % prompts} {i % prompts}", text(), text()) for i in range(n)]


def jaccard(a, b):
    return len(a & b) / len(a | b)


@given(
    st.lists(st.frozensets(st.sampled_from("abcdefgh"), min_size=1), max_size=12),
    st.sampled_from([0.25, 1 / 3, 0.5, 0.6, 2 / 3, 0.75, 0.8, 1.0]),
)
def test_near_duplicates_are_those_of_all_pairs(sets, least):
    found = {(i, j) for i, j, _ in near_duplicates(sets, least)}
    pairs = itertools.combinations(range(len(sets)), 2)
    assert found == {(i, j) for i, j in pairs if jaccard(sets[i], sets[j]) >= least}


@given(st.lists(st.integers(-4, 4), max_size=9))
def test_the_sign_test_goes_over_all_flips_of_clusters(sums):
    signs = [int(np.sign(s)) for s in sums for _ in range(abs(s))]
    owners = [c for c, s in enumerate(sums) for _ in range(abs(s))]
    found = clustered_share(signs, owners)
    flips = itertools.product([1, -1], repeat=len(sums))
    totals = [abs(sum(f * s for f, s in zip(flip, sums, strict=True))) for flip in flips]
    want = np.mean([total >= abs(sum(sums)) for total in totals])
    assert found.p_value == pytest.approx(want)
    assert (found.yes, found.no) == (signs.count(1), signs.count(-1))


def test_the_normal_approximation_is_near_the_exact_test():
    rng = np.random.default_rng(0)
    for _ in range(20):
        signs, owners = rng.choice([1, -1], 900), rng.integers(0, 300, 900)
        sums = [int(signs[owners == c].sum()) for c in range(300)]
        exact = clustered_share(signs.tolist(), owners.tolist()).p_value
        assert _normal([abs(s) for s in sums if s], abs(sum(sums))) == pytest.approx(
            exact, abs=0.06
        )


def test_copies_of_one_vote_are_one_vote():
    signs = [1] * 40
    assert clustered_share(signs, list(range(40))).p_value < 1e-10
    assert clustered_share(signs, [0] * 40).p_value == 1.0


def test_the_sign_test_keeps_its_level_when_votes_of_a_prompt_agree():
    rng = np.random.default_rng(1)
    owners = np.repeat(np.arange(30), 10).tolist()
    p = [
        clustered_share(np.repeat(rng.choice([1, -1], 30), 10).tolist(), owners).p_value
        for _ in range(300)
    ]
    assert np.mean(np.array(p) < 0.05) < 0.09
    alone = [
        clustered_share(np.repeat(rng.choice([1, -1], 30), 10).tolist(), list(range(300))).p_value
        for _ in range(100)
    ]
    assert np.mean(np.array(alone) < 0.05) > 0.3  # what ignoring the prompts would do


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.3])
def test_label_noise_is_found_again(rate):
    rng = np.random.default_rng(2)
    truth = rng.integers(0, 2, 20_000)
    labels = [
        (t ^ (rng.random(n) < rate)).astype(int).tolist()
        for t, n in zip(truth, rng.integers(1, 5, len(truth)), strict=True)
    ]
    assert label_noise(labels) == pytest.approx(rate, abs=0.01)


def test_label_noise_at_its_edges():
    assert np.isnan(label_noise([[1], [0]]))
    assert label_noise([[0, 1]]) == 0.5
    assert label_noise([[1, 1], [0, 0]]) == 0.0


def test_nothing_is_found_in_clean_pairs():
    found = audit_preferences(clean(200, np.random.default_rng(3)))
    assert not found.copies and not found.near and not found.contradictions
    assert np.isnan(found.noise) and found.repeated == 0
    assert found.longer.p_value > 0.01 and found.first is None and found.leak is None
    assert found.prompts == found.effective_prompts == 200
    assert "not known" in str(found)


def test_each_planted_fault_is_found_and_no_other():
    rng = np.random.default_rng(4)
    pairs = clean(300, rng)
    one, other, third = pairs[7], pairs[9], pairs[11]
    planted = [
        *pairs,
        one,
        Preference(other.prompt, other.rejected, other.chosen),
        Preference("a new prompt", third.chosen + " indeed", third.rejected),
    ]
    found = audit_preferences(planted)
    assert found.copies == (300,) and found.contradictions == (301,)
    assert [(i, j) for i, j, _ in found.near] == [(11, 302)]
    assert found.repeated == 2 and found.noise == pytest.approx(0.5)  # d = 1/2


def test_a_pair_of_equal_responses_contradicts_nothing():
    found = audit_preferences([Preference("x", "same", "same")] * 2)
    assert found.copies == (1,) and found.contradictions == ()


def test_biases_and_uneven_prompts_are_found():
    rng = np.random.default_rng(5)
    pairs = [
        Preference(p.prompt, *sorted((p.chosen, p.rejected), key=len, reverse=rng.random() < 0.8))
        for p in clean(300, rng, prompts=100)
    ]
    shown_first = (rng.random(300) < 0.7).tolist()
    found = audit_preferences(pairs, first=shown_first)
    assert found.longer.share > 0.7 and found.longer.p_value < 1e-4
    assert found.first.share > 0.6 and found.first.p_value < 1e-4
    assert found.prompts == 100 and found.effective_prompts == 100
    many = audit_preferences([*pairs, *([pairs[0]] * 300)])
    assert many.prompts == 100 and many.effective_prompts < 5


def test_leaks_are_found_by_prompt_response_and_pair():
    rng = np.random.default_rng(6)
    train, held = clean(80, rng), clean(6, rng)
    long = "please tell me all about the old town and its many narrow streets and squares"
    train.append(Preference(long, "a b c d", "e f g h"))
    held = [Preference(f"held {i}", p.chosen, p.rejected) for i, p in enumerate(held)]
    held[1] = Preference(train[5].prompt, held[1].chosen, held[1].rejected)
    held[2] = Preference(long + " now", held[2].chosen, held[2].rejected)
    held[3] = Preference("held 3", train[6].rejected, held[3].rejected)
    held[4] = Preference(train[8].prompt, train[8].rejected, train[8].chosen)
    found = leakage(train, held)
    assert found.prompts == (1, 4) and found.near_prompts == (2,)
    assert found.responses == (3, 4) and found.pairs == (4,)


def test_prompts_may_be_messages_and_bad_input_is_refused():
    messages = [{"role": "user", "content": "Why?"}]
    found = audit_preferences([Preference(messages, "So.", "No."), Preference(messages, "A", "B")])
    assert found.prompts == 1
    with pytest.raises(EmptyDataError):
        audit_preferences([])
    with pytest.raises(ShapeError):
        audit_preferences([Preference("x", "a", "b")], first=[True, False])
    with pytest.raises(InvalidHyperparameterError):
        near_duplicates([], 0.0)
    with pytest.raises(InvalidHyperparameterError):
        clustered_share([2], ["a"])


def test_shingles_of_a_short_text_are_the_text():
    assert shingles("Two words") == {"two words"} and shingles("") == {""}
    assert shingles("A b c d") == {"a b c", "b c d"}


def test_more_disagreement_than_independent_errors_can_make_is_said_to_be_a_cap():
    pairs = clean(4, np.random.default_rng(0))
    turned = [Preference(p.prompt, p.rejected, p.chosen) for p in pairs]
    found = audit_preferences([*pairs, *turned])
    assert (found.disagree, found.noise) == (1.0, 0.5)
    assert "50%, which is a cap" in str(found) and "100% of the label pairs" in str(found)
    half = audit_preferences([*pairs, *turned[:2], *pairs[2:]])
    assert half.disagree == 0.5 and "cap" not in str(half)
