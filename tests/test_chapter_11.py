"""Every displayed equation of chapter 11 that has code, against an independent computation.

Exact oracles: all pairs of an enumerable language model, all subsets, tiny models in float64.
"""

from __future__ import annotations

import itertools
import os

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch.nn.functional import logsigmoid

from irlbook import data, planning
from irlbook.errors import (
    InvalidHyperparameterError,
    NotFiniteError,
    ShapeError,
    UninformativeDataError,
)
from irlbook.lm import enumerable, models, tokenization
from irlbook.metrics import within_prompt_spearman
from irlbook.posttraining.cross_prompt import tied_weight
from irlbook.posttraining.evaluation import (
    best_of_n_gold,
    expected_calibration_error,
    pairwise_accuracy,
    reliability,
)
from irlbook.posttraining.generative_judge import both_orders
from irlbook.posttraining.regularised_reward import regularised_reward_loss
from irlbook.posttraining.reward_model import (
    RewardScorer,
    bradley_terry_loss,
    classification_loss,
    ensemble_reward,
)
from irlbook.tasks import reviews
from irlbook.training import score


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


@pytest.fixture
def rng():
    return np.random.default_rng(11)


@pytest.fixture
def world(rng):
    """An enumerable model, how often each ordered pair is shown, a reward, chances of winning."""
    lm = enumerable.EnumerableLM.create(
        ("a", "b", "<end>"), 3, lambda s: rng.dirichlet(np.ones(3), size=len(s))
    )
    log_ref = lm.sequence_log_probabilities()
    reward = rng.normal(size=len(log_ref)) * 1.5
    shown = np.exp(log_ref[:, None] + log_ref[None, :])
    return lm, shown, reward, sigmoid(reward[:, None] - reward[None, :])


def population(loss_of, shown, wins):
    """Expected loss of a table of rewards over all labelled pairs, as f(table) -> (loss, grad)."""
    weight = torch.tensor(shown * wins).flatten()

    def f(table):
        r = torch.tensor(table, requires_grad=True)
        pairs = torch.stack(torch.broadcast_tensors(r[:, None], r[None, :]), dim=-1).flatten(0, 1)
        loss = (weight * loss_of(pairs)).sum()
        loss.backward()
        return loss.item(), r.grad.numpy()

    return f


def solve(f, n):
    options = {"maxiter": 2000, "ftol": 1e-16, "gtol": 1e-12}
    return minimize(f, np.zeros(n), jac=True, method="L-BFGS-B", options=options).x


def test_eq_11_1_and_11_2_a_soft_choice_between_two_is_bradley_terry(rng):
    for _ in range(20):
        r, beta, m = rng.normal(size=2), rng.uniform(0.2, 3), rng.dirichlet(np.ones(2))
        _, policy = planning.soft_backup(r[None], beta, np.log(m)[None])
        assert policy[0, 0] == pytest.approx(
            sigmoid((r[0] - r[1]) / beta + np.log(m[0] / m[1])), abs=1e-12
        )
    prompt, first, second = next(iter(reviews.PROMPTS)), "The cake was great.", "It was raining."
    difference = reviews.gold(prompt, first) - reviews.gold(prompt, second)
    chosen = [
        reviews.prefer(prompt, first, second, rng, rationality=0.5).chosen == first
        for _ in range(4000)
    ]
    assert np.mean(chosen) == pytest.approx(sigmoid(0.5 * difference), abs=0.03)


def test_eq_11_1_shuffling_keeps_the_order_and_shrinks_the_scale():
    bias, difference = 2.0, np.linspace(0.1, 6, 60)
    mixed = (sigmoid(difference + bias) + sigmoid(difference - bias)) / 2
    assert (np.diff(mixed) > 0).all() and mixed[0] > 0.5
    read = np.log(mixed / (1 - mixed))
    assert (read < difference).all()
    assert np.interp([1.0, 2.0], difference, read) == pytest.approx([0.45, 1.05], abs=0.01)
    # with the order written down, half the sum of the two log-odds is the difference
    odds = [np.log(p / (1 - p)) for p in (sigmoid(difference + bias), sigmoid(difference - bias))]
    np.testing.assert_allclose(sum(odds) / 2, difference, atol=1e-9)


def test_eq_11_3_and_11_4_loss_and_gradient(rng):
    rewards = torch.tensor(rng.normal(size=(30, 2)) * 3, requires_grad=True)
    loss = bradley_terry_loss(rewards)
    d = (rewards[:, 0] - rewards[:, 1]).detach().numpy()
    np.testing.assert_allclose(loss.detach().numpy(), -np.log(sigmoid(d)), atol=1e-12)
    loss.sum().backward()
    wanted = np.stack([sigmoid(d) - 1, 1 - sigmoid(d)], axis=1)  # probability minus label
    np.testing.assert_allclose(rewards.grad.numpy(), wanted, atol=1e-12)
    assert torch.isfinite(bradley_terry_loss(torch.tensor([[-1e4, 1e4], [1e4, -1e4]]))).all()


def test_eq_11_5_the_hessian_is_the_fisher_information_of_the_label(rng):
    phi, w = torch.tensor(rng.normal(size=(6, 2, 4))), torch.tensor(rng.normal(size=4))
    delta = phi[:, 0] - phi[:, 1]
    p = torch.sigmoid(delta @ w)
    hessian = torch.autograd.functional.hessian(lambda v: bradley_terry_loss(phi @ v).sum(), w)
    outer = torch.einsum("pi,pj->pij", delta, delta)
    torch.testing.assert_close(hessian, ((p * (1 - p))[:, None, None] * outer).sum(0))
    # Fisher information: mean over the label of the squared score, score = (p - label) delta
    score_squared = p * (p - 1) ** 2 + (1 - p) * p**2
    torch.testing.assert_close(hessian, (score_squared[:, None, None] * outer).sum(0))
    turned = torch.autograd.functional.hessian(
        lambda v: bradley_terry_loss(phi.flip(1) @ v).sum(), w
    )
    torch.testing.assert_close(hessian, turned)  # it does not depend on the label


def test_eq_11_6_a_number_a_prompt_changes_nothing(rng):
    rewards, gold = rng.normal(size=(40, 2)), rng.normal(size=(40, 2))
    shifted = rewards + 10 * rng.normal(size=(40, 1))
    loss = [bradley_terry_loss(torch.tensor(r)).numpy() for r in (rewards, shifted)]
    np.testing.assert_allclose(*loss, atol=1e-12)
    assert not np.allclose(*(classification_loss(torch.tensor(r)) for r in (rewards, shifted)))
    for measure in (
        pairwise_accuracy,
        lambda r, g: best_of_n_gold(r, g, 2).mean(),
    ):
        assert measure(rewards, gold) == pytest.approx(measure(shifted, gold), abs=1e-12)
    assert expected_calibration_error(rewards) == pytest.approx(
        expected_calibration_error(shifted), abs=1e-9
    )


def test_eq_11_7_the_best_reward_on_all_pairs_is_the_true_one_up_to_a_constant(world):
    lm, shown, reward, wins = world
    found = solve(population(bradley_terry_loss, shown, wins), len(reward))
    np.testing.assert_allclose(found - found.mean(), reward - reward.mean(), atol=2e-4)
    at_truth = population(bradley_terry_loss, shown, wins)(reward)
    assert np.abs(at_truth[1]).max() < 1e-14
    for constant in (0.0, -3.0):
        policy = lm.kl_optimum(reward + constant, beta=0.7).log_probabilities
        np.testing.assert_allclose(
            policy, lm.kl_optimum(reward, beta=0.7).log_probabilities, atol=1e-12
        )


def test_eq_11_8_the_classifier_is_order_consistent_and_not_the_reward(world):
    lm, shown, reward, wins = world
    rate = wins @ np.exp(lm.sequence_log_probabilities())
    log_odds = np.log(rate / (1 - rate))
    gradient = population(classification_loss, shown, wins)(log_odds)[1]
    assert np.abs(gradient).max() < 1e-14
    assert (np.diff(log_odds[np.argsort(reward)]) > 0).all()
    best = lm.kl_optimum(reward, 0.5).log_probabilities
    other = lm.kl_optimum(log_odds, 0.5).log_probabilities
    assert enumerable.kl_from_logps(other, best) > 1e-3
    np.testing.assert_allclose(  # best-of-n only sorts
        enumerable.best_of_n(lm.sequence_log_probabilities(), reward, 8),
        enumerable.best_of_n(lm.sequence_log_probabilities(), log_odds, 8),
        atol=1e-12,
    )


@pytest.fixture(scope="module")
def classifier():
    from transformers import LlamaConfig, LlamaForSequenceClassification

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=23, hidden_size=16, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=64, num_labels=1,
        pad_token_id=0,
    )  # fmt: skip
    return LlamaForSequenceClassification(config).double().eval()


END = 2


def a_group(rng, lengths):
    prompt = rng.integers(3, 23, size=4).tolist()
    return prompt, [[*rng.integers(3, 23, size=n - 1).tolist(), END] for n in lengths]


@torch.no_grad()
def test_eq_11_9_heads_read_the_last_token_or_the_sum(classifier, rng):
    group = a_group(rng, (5, 2, 7))
    scores = {}
    for prompt, response in ((group[0], y) for y in group[1]):
        ids = torch.tensor([prompt + response])
        each = classifier.score(classifier.model(ids)[0])[0, len(prompt) :, 0]
        scores.setdefault("last", []).append(each[-1].item())
        scores.setdefault("sum", []).append(each.sum().item())
    for pooling, wanted in scores.items():
        found = score(RewardScorer(classifier, pooling), [group], 3)
        np.testing.assert_allclose(found.numpy()[0], wanted, atol=1e-10)


def test_eq_11_9_shaping_moves_token_rewards_and_no_difference(world, rng):
    lm, _, reward, _ = world
    potential = rng.normal(size=lm.n_states)
    potential[lm.responses] = 0.0
    mdp = lm.mdp(reward)
    live = np.flatnonzero(lm.children[:, 0] >= 0)
    shaped = mdp.reward.copy()
    shaped[live] += potential[lm.children[live]] - potential[live][:, None]
    for k, response in enumerate(lm.responses):
        state, total = 0, 0.0
        for token in lm.prefixes[response, : lm.lengths[response]]:
            total += shaped[state, token]
            state = lm.children[state, token]
        assert total == pytest.approx(reward[k] - potential[0], abs=1e-12)


def test_eq_11_10_no_reward_has_less_loss_than_the_entropy_of_the_labels(world, rng):
    _, shown, reward, wins = world
    f = population(bradley_terry_loss, shown, wins)
    entropy = -(shown * (wins * np.log(wins) + (1 - wins) * np.log(1 - wins))).sum()
    # f weighs an ordered pair by the chance that its first response wins: half of the total
    assert f(reward)[0] == pytest.approx(entropy / 2, abs=1e-12)
    for _ in range(20):
        assert f(reward + rng.normal(size=len(reward)))[0] > f(reward)[0]


def test_eq_11_11_calibration_error_by_hand(rng):
    rewards = rng.normal(size=(500, 2)) * 2
    d = rewards[:, 0] - rewards[:, 1]
    confidence = sigmoid(np.abs(d))
    for bins in (1, 4, 10):
        total = 0.0
        for b in range(bins):
            low, high = 0.5 + b / (2 * bins), 0.5 + (b + 1) / (2 * bins)
            inside = (confidence >= low) & ((confidence < high) | (b == bins - 1))
            if inside.any():
                gap = confidence[inside].mean() - (d[inside] > 0).mean()
                total += abs(gap) * inside.mean()
        assert expected_calibration_error(rewards, bins) == pytest.approx(total, abs=1e-12)
    assert reliability(rewards, 6)[2].sum() == 500
    assert np.isnan(reliability(np.array([[9.0, 0.0]]), 4)[0][0])


def test_eq_11_11_labels_drawn_from_the_model_are_calibrated(rng):
    rewards = rng.normal(size=(40_000, 2)) * 1.5
    turn = rng.random(len(rewards)) > sigmoid(rewards[:, 0] - rewards[:, 1])
    rewards[turn] = rewards[turn, ::-1]
    assert expected_calibration_error(rewards) < 0.015
    assert expected_calibration_error(3 * rewards) > 0.1


def test_eq_11_12_best_of_n_is_the_mean_over_all_subsets(rng):
    rewards = rng.integers(0, 4, size=(3, 7)).astype(float)  # with ties
    gold = rng.normal(size=(3, 7))
    for n in range(1, 8):
        wanted = []
        for r, g in zip(rewards, gold, strict=True):
            values = []
            for subset in itertools.combinations(range(7), n):
                top = max(r[i] for i in subset)
                values.append(np.mean([g[i] for i in subset if r[i] == top]))
            wanted.append(np.mean(values))
        np.testing.assert_allclose(best_of_n_gold(rewards, gold, n), wanted, atol=1e-12)
    assert np.isfinite(best_of_n_gold(rng.normal(size=(1, 3000)), rng.normal(size=(1, 3000)), 1500))


def test_eq_11_12_many_samples_approach_the_exact_distribution(world, rng):
    lm, _, reward, _ = world
    log_p = lm.sequence_log_probabilities()
    exact = enumerable.expectation(enumerable.best_of_n(log_p, reward, 4), reward)
    drawn = lm.sample(40_000, rng).reshape(-1, 40)
    estimate = best_of_n_gold(reward[drawn], reward[drawn], 4).mean()
    assert estimate == pytest.approx(exact, abs=0.05)


def test_eq_11_13_and_11_14_flips_smoothing_and_their_correction():
    e, p = 0.25, 0.9
    q = (1 - e) * p + e * (1 - p)
    d = torch.linspace(-8, 8, 160_001, dtype=torch.float64)
    pairs = torch.stack([d, torch.zeros_like(d)], dim=1)

    def corrected(x):
        return ((1 - e) * -logsigmoid(x) - e * -logsigmoid(-x)) / (1 - 2 * e)

    def best(loss_for, loss_against, chance):
        return sigmoid(float(d[(chance * loss_for + (1 - chance) * loss_against).argmin()]))

    plain = bradley_terry_loss(pairs), bradley_terry_loss(pairs.flip(1))
    smooth = tuple(bradley_terry_loss(x, label_smoothing=e) for x in (pairs, pairs.flip(1)))
    assert best(*plain, q) == pytest.approx(q, abs=1e-4)
    assert best(*smooth, q) == pytest.approx((1 - e) * q + e * (1 - q), abs=1e-4)
    assert best(corrected(d), corrected(-d), q) == pytest.approx(p, abs=1e-4)
    mean_over_flips = (1 - e) * corrected(d) + e * corrected(-d)
    torch.testing.assert_close(mean_over_flips, -logsigmoid(d))  # unbiased


def test_eq_11_15_ensembles(rng):
    r = rng.normal(size=(5, 3, 4))
    t = torch.tensor(r)
    np.testing.assert_allclose(ensemble_reward(t), r.mean(0))
    np.testing.assert_allclose(ensemble_reward(t, "worst"), r.min(0))
    np.testing.assert_allclose(
        ensemble_reward(t, "uncertainty", 0.3), r.mean(0) - 0.3 * r.var(0), atol=1e-12
    )


def test_eq_11_16_a_regularised_loss_by_hand(rng):
    rewards, logps = rng.normal(size=(20, 2)), -50 * rng.random(20)
    found = regularised_reward_loss(torch.tensor(rewards), torch.tensor(logps), 0.3, 0.2)
    wanted = -0.7 * np.log(sigmoid(rewards[:, 0] - rewards[:, 1])) - 0.3 * np.log(
        sigmoid(0.2 * logps)
    )
    np.testing.assert_allclose(found.numpy(), wanted, atol=1e-12)


def test_eq_11_17_two_ways_to_join_both_orders(rng):
    z = rng.normal(size=(50, 2)) * 3
    joined = both_orders(torch.tensor(z)).numpy()
    np.testing.assert_allclose(joined, (z[:, 0] - z[:, 1]) / 2, atol=1e-12)
    mean = (sigmoid(z[:, 0]) + sigmoid(-z[:, 1])) / 2
    found = both_orders(torch.tensor(z), "probability").numpy()
    np.testing.assert_allclose(sigmoid(found), mean, atol=1e-12)


def test_eq_11_18_the_weight_of_an_artifact_with_ties_maximises_the_likelihood():
    for won, lost, ties in ((60, 20, 0), (60, 20, 35), (3, 10, 200)):

        def loss(w, won=won, lost=lost, ties=ties):
            p = sigmoid(w[0])
            up, down = won + ties / 2, lost + ties / 2
            return -up * np.log(p) - down * np.log(1 - p)

        found = minimize(loss, [0.0], method="Nelder-Mead", options={"xatol": 1e-9}).x[0]
        assert tied_weight(won, lost, ties) == pytest.approx(found, abs=1e-6)


@torch.no_grad()
def test_a_reward_does_not_depend_on_the_batch_and_pad_may_be_the_end_token(classifier, rng):
    groups = [a_group(rng, rng.integers(2, 9, size=2)) for _ in range(6)]
    scorer = RewardScorer(classifier, "last")
    together = score(scorer, groups, 2, pad_id=0)
    singly = torch.stack([score(scorer, [(p, [y])], 1)[0, 0] for p, ys in groups for y in ys])
    torch.testing.assert_close(together.flatten(), singly, atol=1e-10, rtol=0)
    torch.testing.assert_close(together, score(scorer, groups, 2, pad_id=END), atol=1e-10, rtol=0)
    order = [3, 0, 5, 1, 4, 2]
    shuffled = score(scorer, [groups[i] for i in order], 2)
    torch.testing.assert_close(shuffled, together[order], atol=1e-10, rtol=0)


@torch.no_grad()
def test_planted_transformers_with_pad_as_end_token_reads_one_token_early(classifier, rng):
    prompt, (response,) = a_group(rng, (6,))
    ids = torch.tensor([prompt + response])
    each = classifier.score(classifier.model(ids)[0])[0, :, 0]
    try:
        classifier.config.pad_token_id = END
        planted = classifier(input_ids=ids).logits[0, 0]
    finally:
        classifier.config.pad_token_id = 0
    torch.testing.assert_close(planted, each[-2], atol=1e-10, rtol=0)
    assert abs(planted - each[-1]) > 1e-4
    torch.testing.assert_close(classifier(input_ids=ids).logits[0, 0], each[-1])


def test_accuracy_counts_ties_and_leaves_out_pairs_that_gold_finds_equal():
    gold = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [2.0, 2.0]])
    rewards = np.array([[3.0, 1.0], [1.0, 1.0], [3.0, 1.0], [9.0, 1.0]])
    assert pairwise_accuracy(rewards, gold) == pytest.approx((1 + 0.5 + 0) / 3)


def test_rank_correlation_is_within_prompts():
    gold = np.array([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0], [5.0, 5.0, 5.0]])
    assert within_prompt_spearman(gold + [[0], [100], [0]], gold) == pytest.approx(1)
    constant = np.array([[1.0, 2.0, 3.0], [4.0, 4.0, 4.0], [1.0, 2.0, 3.0]])
    assert within_prompt_spearman(constant, gold) == pytest.approx(0.5)
    cubed = np.array([[1.0, 8.0, 27.0]])
    assert within_prompt_spearman(cubed, gold[:1]) == pytest.approx(1)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: pairwise_accuracy(np.ones((3, 3)), np.ones((3, 3))), ShapeError, "two columns"),
        (lambda: pairwise_accuracy(np.ones((3, 2)), np.ones((4, 2))), ShapeError, "one shape"),
        (
            lambda: pairwise_accuracy(np.eye(2), np.ones((2, 2))),
            UninformativeDataError,
            "every pair equal",
        ),
        (
            lambda: within_prompt_spearman(np.eye(2), np.ones((2, 2))),
            UninformativeDataError,
            "constant",
        ),
        (lambda: within_prompt_spearman(np.eye(2) * np.nan, np.eye(2)), NotFiniteError, "finite"),
        (lambda: reliability(np.ones((3, 2)), 0), InvalidHyperparameterError, "bins"),
        (lambda: best_of_n_gold(np.eye(3), np.eye(3), 4), InvalidHyperparameterError, "1 <= n"),
        (lambda: best_of_n_gold(np.eye(3), np.eye(3), 0), InvalidHyperparameterError, "1 <= n"),
    ],
)
def test_wrong_input_is_named(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_loading_a_reward_model_says_nothing(tmp_path, capfd):
    tokenizer = tokenization.train_tokenizer(["a b c d"], 300)
    models.save(models.tiny_lm(tokenizer, hidden=16, layers=1, heads=2), tokenizer, tmp_path / "m")
    capfd.readouterr()
    models.load_reward_model(tmp_path / "m", new_head=True)
    shown = capfd.readouterr()
    assert not shown.out and not shown.err


@pytest.mark.skipif("IRLBOOK_DATA" not in os.environ, reason="needs IRLBOOK_DATA")
def test_longer_is_better_holds_on_natural_pairs_only():
    def rule(pairs):
        words = np.array([[len(p.chosen.split()), len(p.rejected.split())] for p in pairs], float)
        return pairwise_accuracy(words, np.tile([1.0, 0.0], (len(words), 1)))

    found = {
        name: rule(data.read_llmbar("llmbar", name)) for name in data.benchmarks.LLMBAR_SUBSETS
    }
    assert found.pop("Natural") == pytest.approx(0.55, abs=0.01)
    assert min(found.values()) == pytest.approx(0.13, abs=0.01)
    assert max(found.values()) == pytest.approx(0.45, abs=0.01)
    assert rule(data.read_hh_rlhf()) == pytest.approx(0.44, abs=0.01)
