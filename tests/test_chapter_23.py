"""Chapter 23: every displayed equation that has code, where all of it can be computed."""

import numpy as np
import pytest
import torch
from scipy.special import expit, logsumexp, softmax

from irlbook.lm.enumerable import EnumerableLM
from irlbook.lm.tokenization import encode_prompt, encode_response
from irlbook.posttraining import book_models
from irlbook.posttraining.real_model import frontier, policies, sentiment, silent_bugs, study

GOLD = np.array([[0.9, -0.4, 0.1, 0.6, 0.0], [0.2, 0.7, -0.8, 0.5, 0.3]])  # likely alike


def test_eq_23_1_a_response_is_the_sum_of_its_tokens():
    model, tokenizer = book_models.load(0)
    exchange = ("Write a bitter review of the bus.", "The driver was dull.")
    (found,) = silent_bugs.prompt_bugs(model, tokenizer, [exchange])["right"]
    x, y = encode_prompt(tokenizer, exchange[0]), encode_response(tokenizer, exchange[1])
    with torch.no_grad():
        logps = model(torch.tensor([x + y])).logits[0].double().log_softmax(-1)
    by_hand = sum(float(logps[len(x) + t - 1, token]) for t, token in enumerate(y))
    assert found == pytest.approx(by_hand, abs=1e-3)


def test_eq_23_2_labels_follow_the_noise_that_was_chosen():
    rng = np.random.default_rng(0)
    values = np.array([0.3, 0.1])
    right = np.mean([sentiment.wide_pairs(values, rng)[1] for _ in range(4000)])
    assert right == pytest.approx(expit(sentiment.LABEL_SCALE * 0.2), abs=0.03)


def test_eq_23_3_weighted_samples_are_the_planners_optimum():
    lm = EnumerableLM.create(["good", "bad", "<end>"], 3, lambda p: np.full((len(p), 3), 1 / 3))
    gold = np.array([lm.text(state).split().count("good") for state in lm.responses], dtype=float)
    best = lm.kl_optimum(gold, 1 / 1.5)
    p, p_ref = np.exp(best.log_probabilities), np.exp(lm.sequence_log_probabilities())
    drawn = np.random.default_rng(1).choice(len(p_ref), 40_000, p=p_ref / p_ref.sum())
    found, kl = frontier.tilt(gold[drawn][None], 1.5)
    assert found == pytest.approx(p @ gold, abs=0.02)
    assert kl == pytest.approx(p @ np.log(p / p_ref), abs=0.02)


def test_eq_23_4_pythagoras():
    policy = np.random.default_rng(2).dirichlet(np.ones(5), size=2)
    strength, price = frontier.matching_tilt(GOLD, float((policy * GOLD).sum(1).mean()))
    log_tilt = strength * GOLD - logsumexp(strength * GOLD, axis=1, keepdims=True)
    rest = (policy * (np.log(policy) - log_tilt)).sum(1).mean()
    assert (policy * np.log(5 * policy)).sum(1).mean() == pytest.approx(price + rest)


def test_eq_23_5_places_and_classes_add_up():
    known = frontier.Evaluation(
        [[[4, 5, 2]]], [[[-1.0, -2.0, -0.5]]], [[[-1.5, -1.0, -2.5]]], [[True]], [[0.1]]
    )
    assert known.log_ratios.item() == pytest.approx(1.5)
    assert frontier.kl_by_position(known, (0, 1, 3)) == pytest.approx([0.5, 1.0])
    parts = frontier.kl_by_class(known, lambda ids: ["other", "sentiment", "end"])
    assert parts["sentiment"] == pytest.approx(-1.0) and parts["end"] == pytest.approx(2.0)


def test_eq_23_6_gold_alone_costs_no_more_than_the_policy():
    """Where a policy is the tilt, gold is all that it changed, and nothing is lost but the bins."""
    rng = np.random.default_rng(3)
    gold = rng.normal(size=20_000)
    p = softmax(0.8 * gold)
    kl = float((p * np.log(p * len(gold))).sum())
    alone = frontier.kl_of_gold(rng.choice(gold, 20_000, p=p), gold)
    assert 0.85 * kl < alone < kl + 0.01


def test_eq_23_7_a_small_step_pays_one_over_the_squared_correlation():
    rng = np.random.default_rng(4)
    gold, other = rng.normal(size=(2, 3, 5000))
    h = 0.02 * gold + 0.03 * other
    p = softmax(h, axis=1)
    paid = (p * np.log(p * 5000)).sum(1).mean()
    _, price = frontier.matching_tilt(gold, float((p * gold).sum(1).mean()))
    assert paid / price == pytest.approx(frontier.direction(h, gold)["price_factor"], rel=0.05)


def test_eq_23_8_the_mean_log_ratio_on_the_starts_samples_is_the_reverse_kl():
    strength = 1.7
    p = softmax(strength * GOLD, axis=1)
    reverse = (np.log(1 / 5 / p) / 5).sum(1)
    h = np.log(5 * p)
    assert -h.mean(1) == pytest.approx(reverse)
    by_formula = logsumexp(strength * GOLD, axis=1) - np.log(5) - strength * GOLD.mean(1)
    assert by_formula == pytest.approx(reverse)


def test_eq_23_9_weighted_likelihood_is_best_at_the_tilt():
    """The loss is convex in the logits, and its slope is zero at the tilt alone."""
    wanted = torch.tensor(softmax(GOLD / 0.2, axis=1))

    class Batch:
        extra = {"weights": wanted}
        per_response = staticmethod(lambda scores: scores)

    def slope(probabilities):
        logits = probabilities.log().requires_grad_()
        loss = policies.tilt_objective(1.0).values(logits.log_softmax(1), Batch)["loss"].sum()
        return torch.autograd.grad(loss, logits)[0].abs().max()

    assert slope(wanted) < 1e-9 < 0.1 < slope(torch.full_like(wanted, 0.2))


def test_what_ships_has_what_the_chapter_reads():
    raw = study.load()
    gold = np.array(raw["policies"]["pool"]["gold"])
    for run in raw["policies"]["runs"].values():
        for seed in run["seeds"].values():
            assert np.array(seed["log_ratios"]).shape == gold.shape
            assert np.mean(seed["gold_by_prompt"]) == pytest.approx(seed["gold"], abs=1e-3)
            assert np.mean(seed["kl_by_prompt"]) == pytest.approx(seed["kl"], abs=1e-3)
