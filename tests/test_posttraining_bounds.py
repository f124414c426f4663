"""Where a bound lies, what is counted, and what a default means: the small print of floor 5."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import tensor

from irlbook.data.records import Preference, ReasoningTrace
from irlbook.errors import (
    DivergentPartitionError,
    InfiniteDivergenceError,
    InvalidDataError,
    InvalidHyperparameterError,
    NotConvergedError,
    NotFiniteError,
    NotStochasticError,
    ResponseError,
    RewardError,
    SamplingError,
    ShapeError,
    UnidentifiedRewardError,
    UninformativeDataError,
)
from irlbook.lm.enumerable import EnumerableLM
from irlbook.lm.trees import collate
from irlbook.posttraining import credit_assignment as credit
from irlbook.posttraining import (
    cross_prompt,
    dpo,
    evaluation,
    goodhart,
    many_samples,
    mistake_finding,
    policy_pairs,
    process_rewards,
    prompt_choice,
    reward_model,
    rrhf,
    spin,
    spurious,
    staleness,
    tied_policy,
)
from irlbook.posttraining import policy_gradient as pg
from irlbook.posttraining import social_choice as sc
from irlbook.posttraining.configs import EmbeddingConfig, PreferenceConfig, RewardConfig
from irlbook.training import Batch

NAN, INF = float("nan"), float("inf")


def small(seed=0, max_length=2):
    rng = np.random.default_rng(seed)
    return EnumerableLM.create(
        ["a", "b", "."], max_length, lambda p: rng.dirichlet(np.ones(3), len(p))
    )


# Policy gradients ---------------------------------------------------------------------------------


def test_a_clip_lies_between_nothing_and_all():
    ones = torch.ones(2)
    assert pg.clipped_surrogate(ones.log(), ones.log(), ones, 0.99, 5.0).tolist() == [-1.0, -1.0]
    for low, high in ((0.0, 0.2), (1.0, 0.2), (0.2, 0.0), (-0.1, 0.2)):
        with pytest.raises(InvalidHyperparameterError, match="0 < clip_low < 1 and clip_high > 0"):
            pg.clipped_surrogate(ones, ones, ones, low, high)
    exactly = tensor([1.2, 0.8]).double()  # on the bound both branches are one
    found = pg.clipped_surrogate(exactly.log(), torch.zeros(2).double(), tensor([1.0, -1.0]))
    torch.testing.assert_close(found, tensor([-1.2, 0.8]).double())


def test_a_penalty_for_length_begins_at_the_buffer_and_ends_at_the_limit():
    found = pg.overlong_penalty(tensor([0, 6, 7, 10, 11]), 10, 4)
    torch.testing.assert_close(found, tensor([0.0, 0.0, -0.25, -1.0, -1.0]))
    torch.testing.assert_close(pg.overlong_penalty(tensor([5]), 10, 10), tensor([-0.5]))
    for buffer in (0, 11):
        with pytest.raises(InvalidHyperparameterError, match=r"1\.\.10"):
            pg.overlong_penalty(tensor([1]), 10, buffer)


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: pg.remax_advantage(torch.ones(2, 3), torch.ones(3)), ShapeError),
        (lambda: pg.remax_advantage(torch.ones(1, 2), tensor([INF])), RewardError),
        (lambda: pg.reinforce_advantage(torch.ones(3)), ShapeError),
        (lambda: pg.reinforce_advantage(tensor([[INF]])), RewardError),
        (lambda: pg.constant_groups(torch.ones(2, 1)), ShapeError),
        (lambda: pg.token_gae(torch.ones(3), torch.ones(3), tensor([2])), ShapeError),
        (lambda: pg.aggregate(torch.ones(3), tensor([2]), "token"), ShapeError),
        (
            lambda: pg.aggregate(torch.ones(2), tensor([2]), "constant", 0.0),
            InvalidHyperparameterError,
        ),
        (lambda: pg.aggregate(torch.ones(2), tensor([2]), "mean"), InvalidHyperparameterError),
    ],
)
def test_what_is_no_group_of_rewards_is_refused(call, error):
    with pytest.raises(error):
        call()


def test_advantages_by_hand():
    r = tensor([[1.0, 3.0], [5.0, 5.0]])
    assert pg.reinforce_advantage(r, 2.0).tolist() == [[-1, 1], [3, 3]]
    assert pg.reinforce_advantage(r).equal(r)
    assert pg.remax_advantage(r, tensor([1.0, 4.0])).tolist() == [[0, 2], [1, 1]]
    assert pg.rloo_advantage(r).tolist() == [[-2, 2], [0, 0]]
    assert pg.grpo_advantage(r, scale=False).tolist() == [[-1, 1], [0, 0]]
    torch.testing.assert_close(pg.grpo_advantage(r)[0], tensor([-1, 1]) / math.sqrt(2))
    assert pg.per_token(tensor([1.0, 2.0]), tensor([2, 1])).tolist() == [1, 1, 2]


def test_advantages_over_time_are_discounted_and_carry_no_gradient():
    r, v = tensor([0.0, 1.0, 3.0]), tensor([0.5, 0.2, 1.0], requires_grad=True)
    a, target = pg.token_gae(r, v, tensor([2, 1]), discount=0.5, lam=0.4)
    second = 1.0 - 0.2
    first = 0.5 * 0.2 - 0.5 + 0.5 * 0.4 * second
    torch.testing.assert_close(a, tensor([first, second, 2.0]))
    torch.testing.assert_close(target, a + v.detach())
    assert not a.requires_grad and not target.requires_grad


def test_fresh_samples_may_differ_by_the_tolerance_and_no_more():
    zero = torch.zeros(2).double()
    pg.check_fresh(zero + 0.9e-3, zero)
    pg.check_fresh(zero - 0.2, zero, 0.2)
    for worse in (1.1e-3, -1.1e-3, NAN):
        with pytest.raises(SamplingError, match="nats away"):
            pg.check_fresh(zero + tensor([0.0, worse]), zero)


def test_the_value_is_kept_near_its_old_one_on_both_sides():
    values = tensor([0.5, -0.5, 0.1], requires_grad=True)
    loss = pg.value_loss(values, torch.zeros(3), tensor([1.0, -1.0, 1.0]), clip=0.3)
    torch.testing.assert_close(loss, tensor([0.7**2, 0.7**2, 0.9**2]) / 2)
    (slope,) = torch.autograd.grad(loss.sum(), values)
    torch.testing.assert_close(slope, tensor([0.0, 0.0, -0.9]))


# Preferences --------------------------------------------------------------------------------------

POLICY = tensor([-3.0, -5.0, -4.0, -2.5], dtype=torch.float64)
REFERENCE = tensor([[-3.5, -4.0], [-4.0, -4.5]], dtype=torch.float64)
TREE = collate([([1], [[2, 3], [4]]), ([1, 2], [[5], [6, 7, 8]])])
LENGTHS = tensor([[2, 1], [1, 3]])
PAIRS = POLICY.view(2, 2)


def values(config, **changes):
    batch = Batch(TREE, tensor([0, 1]), REFERENCE, {}, **changes)
    return dpo.objective(config).values(POLICY, batch)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"loss": "dpo", "label_smoothing": 0.1}, lambda: dpo.dpo_loss(PAIRS, REFERENCE, 0.3, 0.1)),
        (
            {"loss": "robust", "label_smoothing": 0.2},
            lambda: dpo.robust_dpo_loss(PAIRS, REFERENCE, 0.3, 0.2),
        ),
        ({"loss": "exo", "label_smoothing": 0.2}, lambda: dpo.exo_loss(PAIRS, REFERENCE, 0.3, 0.2)),
        ({"loss": "ipo"}, lambda: dpo.ipo_loss(PAIRS, REFERENCE, 0.3)),
        (
            {"loss": "ipo", "length_normalised": True},
            lambda: dpo.ipo_loss(PAIRS, REFERENCE, 0.3, LENGTHS),
        ),
        ({"loss": "rso"}, lambda: dpo.rso_loss(PAIRS, REFERENCE, 0.3)),
    ],
)
def test_an_objective_is_its_loss_with_its_settings_and_metrics(options, expected):
    config = PreferenceConfig(beta=0.3, **options)
    found = values(config)
    torch.testing.assert_close(found.pop("loss"), expected())
    wanted = dpo.preference_metrics(PAIRS, REFERENCE, 0.3)
    assert set(found) == set(wanted)
    for name, metric in wanted.items():
        assert found[name].equal(metric), name
    made = dpo.objective(config)
    assert made.needs_reference and made.responses == 2 and made.name == repr(config)


def test_metrics_of_a_pair_by_hand():
    found = dpo.preference_metrics(PAIRS, REFERENCE, 0.5)
    assert found["chosen_reward"].tolist() == [0.25, 0.0]
    assert found["rejected_reward"].tolist() == [-0.5, 1.0]
    assert found["margin"].tolist() == [0.75, -1.0] and found["accuracy"].tolist() == [1.0, 0.0]
    assert found["chosen_logp"].tolist() == [-3.0, -4.0]
    assert found["rejected_logp"].tolist() == [-5.0, -2.5]


def test_losses_without_a_reference_report_what_they_compare():
    slic = values(PreferenceConfig("slic", margin=2.5, sft_weight=0.2))
    torch.testing.assert_close(slic["loss"], dpo.slic_loss(PAIRS, 2.5, PAIRS[:, 0], 0.2))
    assert slic["margin"].tolist() == [2.0, -1.5] and slic["chosen_reward"].tolist() == [-3.0, -4.0]
    simpo = values(PreferenceConfig("simpo", beta=2.0, margin=0.5))
    torch.testing.assert_close(simpo["loss"], dpo.simpo_loss(PAIRS, LENGTHS, 2.0, 0.5))
    each = 2.0 * PAIRS / LENGTHS
    torch.testing.assert_close(simpo["margin"], each[:, 0] - each[:, 1])
    for found in (slic, simpo):
        assert found["chosen_logp"].tolist() == [-3.0, -4.0]
        assert found["rejected_logp"].tolist() == [-5.0, -2.5]
    assert not dpo.objective(PreferenceConfig("simpo", beta=2.0)).needs_reference
    assert dpo.objective(PreferenceConfig("slic")).start is None
    batch = Batch(TREE, tensor([0, 1]), None, {})
    with pytest.raises(ShapeError, match="compares with a reference"):
        dpo.objective().values(POLICY, batch)


def test_kto_learns_from_the_first_response_and_measures_with_the_second():
    config = PreferenceConfig("kto", beta=0.4, desirable_weight=1.5, undesirable_weight=2.0)
    goal, good = dpo.objective(config), tensor([True, False])
    batch = Batch(TREE, tensor([0, 1]), REFERENCE, {"desirable": good}, tensor(0.1))
    torch.testing.assert_close(goal.prepare(POLICY, batch), 0.4 * (PAIRS[:, 1] - REFERENCE[:, 1]))
    found = goal.values(POLICY, batch)
    expected = dpo.kto_loss(PAIRS[:, 0], REFERENCE[:, 0], good, 0.1, 0.4, 1.5, 2.0)
    torch.testing.assert_close(found["loss"], expected)
    gain = 0.4 * (PAIRS[:, 0] - REFERENCE[:, 0]) - 0.1
    torch.testing.assert_close(found["margin"], gain * tensor([1.0, -1.0]))
    assert found["accuracy"].tolist() == [1.0, 1.0]
    torch.testing.assert_close(found["kl"], torch.full((2,), 0.25, dtype=torch.float64))
    below = Batch(TREE, tensor([0, 1]), REFERENCE, {"desirable": good}, tensor(-3.0))
    assert goal.values(POLICY, below)["kl"].tolist() == [0.0, 0.0]
    for weights in ((0.0, 1.0), (1.0, 0.0)):
        with pytest.raises(InvalidHyperparameterError, match="must be positive"):
            dpo.kto_loss(PAIRS[:, 0], REFERENCE[:, 0], good, 0.0, 0.4, *weights)
    for labels in (good[:1], good.long()):
        with pytest.raises(ShapeError, match="true-or-false"):
            dpo.kto_loss(PAIRS[:, 0], REFERENCE[:, 0], labels, 0.0)


def test_nobody_lends_to_himself():
    examples = [([k], [10 + k]) for k in range(5)]
    groups = dpo.kto_groups(examples, seed=3)
    assert [prompt for prompt, _ in groups] == [[k] for k in range(5)]
    assert [own for _, (own, _) in groups] == [[10 + k] for k in range(5)]
    lent = [other[0] - 10 for _, (_, other) in groups]
    assert sorted(lent) == list(range(5)) and all(k != other for k, other in enumerate(lent))
    assert dpo.kto_groups(examples[:2])[0] == ([0], [[10], [11]])
    with pytest.raises(ResponseError, match="two examples"):
        dpo.kto_groups(examples[:1])


def test_the_best_of_a_prompts_samples_meets_the_worst():
    groups = [([1], [[1], [2], [3]]), ([2], [[4], [5]]), ([3], [[6], [7]])]
    pairs = dpo.best_against_worst(groups, tensor([0.0, 2.0, -1.0, 1.0, 1.0, 0.0, 3.0]))
    assert pairs == [([1], [[2], [3]]), ([3], [[7], [6]])]
    with pytest.raises(ShapeError, match="7 samples and rewards of shape"):
        dpo.best_against_worst(groups, torch.zeros(6))


@pytest.mark.parametrize(
    "call",
    [
        lambda: dpo.dpo_loss(PAIRS, REFERENCE, 0.0),
        lambda: dpo.dpo_loss(PAIRS, REFERENCE, INF),
        lambda: dpo.dpo_loss(PAIRS, REFERENCE, 0.1, 0.5),
        lambda: dpo.dpo_loss(PAIRS, REFERENCE, 0.1, -0.1),
        lambda: dpo.robust_dpo_loss(PAIRS, REFERENCE, 0.1, 0.5),
        lambda: dpo.exo_loss(PAIRS, REFERENCE, 0.1, 0.0),
        lambda: dpo.simpo_loss(PAIRS, LENGTHS, 0.0),
        lambda: dpo.simpo_loss(PAIRS, LENGTHS, 2.0, -0.1),
        lambda: dpo.slic_loss(PAIRS, -0.1),
        lambda: dpo.slic_loss(PAIRS, 1.0, PAIRS[:, 0], -0.1),
        lambda: reward_model.bradley_terry_loss(PAIRS, 0.0, 0.5),
        lambda: reward_model.bradley_terry_loss(PAIRS, 0.0, -0.1),
        lambda: reward_model.bradley_terry_loss(PAIRS, centering=-0.1),
        lambda: reward_model.classification_loss(PAIRS, 0.5),
    ],
)
def test_settings_of_a_loss_lie_in_their_domain(call):
    with pytest.raises(InvalidHyperparameterError):
        call()
    assert dpo.slic_loss(PAIRS, 0.0).tolist() == [0.0, 1.5]
    assert dpo.simpo_loss(PAIRS, LENGTHS, 2.0, 0.0).shape == (2,)


@pytest.mark.parametrize(
    "call",
    [
        lambda: dpo.implicit_rewards(PAIRS, REFERENCE[:1], 0.1),
        lambda: dpo.dpo_loss(PAIRS[:, :1], REFERENCE[:, :1]),
        lambda: dpo.ipo_loss(PAIRS[0], REFERENCE[0]),
        lambda: dpo.slic_loss(PAIRS[0]),
        lambda: dpo.simpo_loss(PAIRS, LENGTHS[:1]),
        lambda: reward_model.bradley_terry_loss(PAIRS[0]),
        lambda: reward_model.classification_loss(torch.ones(2, 3)),
    ],
)
def test_pairs_have_two_columns(call):
    with pytest.raises(ShapeError):
        call()
    with pytest.raises(ResponseError, match="no token"):
        dpo.simpo_loss(PAIRS, LENGTHS * 0)


# Reward models ------------------------------------------------------------------------------------


def test_a_reward_objective_uses_the_margins_and_settings_it_is_given():
    batch = Batch(TREE, tensor([0, 1]), None, {"margin": tensor([0.5, 2.0])})
    config = RewardConfig(use_margin=True, label_smoothing=0.1, centering=0.2)
    found = reward_model.objective(config).values(POLICY, batch)
    expected = reward_model.bradley_terry_loss(PAIRS, tensor([0.5, 2.0]), 0.1, 0.2)
    torch.testing.assert_close(found["loss"], expected)
    assert found["margin"].tolist() == [2.0, -1.5] and found["accuracy"].tolist() == [1.0, 0.0]
    assert found["mean_reward"].tolist() == [-4.0, -3.25]
    plain = reward_model.objective().values(POLICY, batch)["loss"]
    torch.testing.assert_close(plain, reward_model.bradley_terry_loss(PAIRS))
    single = RewardConfig("classification", label_smoothing=0.2)
    found = reward_model.objective(single).values(POLICY, batch)["loss"]
    torch.testing.assert_close(found, reward_model.classification_loss(PAIRS, 0.2))


def test_an_ensemble_is_a_mean_a_minimum_or_a_mean_less_the_variance():
    each = tensor([[1.0, 4.0], [3.0, 4.0]])
    assert reward_model.ensemble_reward(each).tolist() == [2.0, 4.0]
    assert reward_model.ensemble_reward(each, "worst").tolist() == [1.0, 4.0]
    assert reward_model.ensemble_reward(each, "uncertainty").tolist() == [1.5, 4.0]
    assert reward_model.ensemble_reward(each, "uncertainty", 0.0).tolist() == [2.0, 4.0]
    for how, weight in (("median", 0.5), ("uncertainty", -0.1)):
        with pytest.raises(InvalidHyperparameterError, match="weight >= 0"):
            reward_model.ensemble_reward(each, how, weight)
    for empty in (torch.empty(0, 2), tensor(1.0)):
        with pytest.raises(ShapeError):
            reward_model.ensemble_reward(empty)


def test_scales_of_embeddings_are_spreads_with_a_floor():
    rng = np.random.default_rng(0)
    x = torch.tensor(rng.normal(size=(50, 4)) * [1.0, 2.0, 1e-7, 0.0] + [0.0, 0.0, 0.0, 3.0])
    found = reward_model.input_scale(x)
    spread = x.std(0, correction=0)
    torch.testing.assert_close(found[:2], spread[:2])
    assert found[2] == pytest.approx(1e-3 * float(spread[0])) and found[3] == torch.inf
    assert reward_model.is_constant(x).tolist() == [False, False, False, True]
    near = tensor([[1.0, 1.0], [1.0 + 5e-7, 1.0 + 3e-6]])
    assert reward_model.is_constant(near).tolist() == [True, False]
    assert reward_model.is_constant(near, dim=1).tolist() == [True, False]
    with pytest.raises(UnidentifiedRewardError, match="are the same"):
        reward_model.input_scale(torch.ones(3, 2))


@pytest.mark.parametrize("loss", ["bt", "classification"])
def test_a_linear_reward_of_embeddings_is_the_penalised_optimum(loss):
    rng = np.random.default_rng(1)
    pairs = torch.tensor(rng.normal(size=(40, 2, 3)) + [[[0.5, 0, 0]], [[-0.5, 0, 0]]][:1])
    pairs[:, 0, 0] += 0.5
    (fitted,) = reward_model.fit_embedding_reward(pairs, EmbeddingConfig(loss, l2=0.1))
    flat = pairs.flatten(0, 1).numpy()
    x = (pairs.numpy() - flat.mean(0)) / flat.std(0)

    def value(v):
        r = x @ v[:3] + v[3]
        if loss == "bt":
            data = np.log1p(np.exp(r[:, 1] - r[:, 0])).mean()
        else:
            data = (np.log1p(np.exp(-r[:, 0])) + np.log1p(np.exp(r[:, 1]))).mean() / 2
        return data + 0.05 * v[:3] @ v[:3]

    want = minimize(value, np.zeros(4), tol=1e-12).x
    layer = fitted.head[0]
    np.testing.assert_allclose(layer.weight.numpy()[0], want[:3], atol=1e-4)
    with torch.no_grad():
        gap = fitted(pairs[:, 0]) - fitted(pairs[:, 1])
    np.testing.assert_allclose(gap.numpy(), (x[:, 0] - x[:, 1]) @ want[:3], atol=1e-3)
    assert not any(p.requires_grad for p in fitted.parameters())


def test_members_of_an_ensemble_differ_by_what_they_drew():
    pairs = torch.randn(30, 2, 2, generator=torch.Generator().manual_seed(0))
    pairs[:, 0] += 0.3

    def fit(**options):
        found = reward_model.fit_embedding_reward(pairs, EmbeddingConfig(**options))
        return [model.head[0].weight.flatten().tolist() for model in found]

    three = fit(members=3, seed=5)
    assert len({tuple(weights) for weights in three}) == 3 and three == fit(members=3, seed=5)
    assert three != fit(members=3, seed=6)
    same = fit(members=2, bootstrap=False)
    np.testing.assert_allclose(same[0], same[1], atol=1e-3)
    before = torch.get_rng_state()
    (deep,) = reward_model.fit_embedding_reward(
        pairs, EmbeddingConfig(hidden=(3,), epochs=2, batch_size=7, learning_rate=0.01)
    )
    assert torch.get_rng_state().equal(before) and deep(pairs).shape == (30, 2)
    for bad in (torch.ones(4, 3, 2), torch.ones(4, 2), torch.ones(0, 2, 3)):
        with pytest.raises(ShapeError, match="not .pairs, 2, H"):
            reward_model.fit_embedding_reward(bad)


# What a reward is worth ---------------------------------------------------------------------------


def test_accuracy_counts_ties_of_the_reward_by_half_and_leaves_out_those_of_gold():
    gold = [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [2.0, 1.0]]
    rewards = [[3.0, 1.0], [3.0, 1.0], [9.0, 0.0], [1.0, 1.0]]
    assert evaluation.pairwise_accuracy(rewards, gold) == pytest.approx(0.5)
    with pytest.raises(UninformativeDataError, match="every pair equal"):
        evaluation.pairwise_accuracy(rewards, np.zeros((4, 2)))
    for bad in (np.zeros((4, 3)), np.zeros(4), np.zeros((0, 2))):
        with pytest.raises(ShapeError):
            evaluation.pairwise_accuracy(bad, bad)
    with pytest.raises(NotFiniteError):
        evaluation.pairwise_accuracy([[INF, 0.0]], [[1.0, 0.0]])


def test_bins_of_confidence_by_hand():
    margins = np.log(np.array([0.55, 0.72, 0.72, 0.95]) / np.array([0.45, 0.28, 0.28, 0.05]))
    rewards = np.column_stack([margins * [1, 1, -1, 1], np.zeros(4)])
    sure, right, count = evaluation.reliability(rewards, 5)
    assert count.tolist() == [1, 0, 2, 0, 1]
    np.testing.assert_allclose(sure[[0, 2, 4]], [0.55, 0.72, 0.95])
    np.testing.assert_allclose(right[[0, 2, 4]], [1.0, 0.5, 1.0])
    assert np.isnan(sure[1]) and np.isnan(right[3])
    error = evaluation.expected_calibration_error(rewards, 5)
    assert error == pytest.approx((0.45 + 2 * 0.22 + 0.05) / 4)
    certain = evaluation.reliability([[800.0, 0.0], [1.0, 1.0]], 1)
    assert certain[2].tolist() == [2] and certain[1].tolist() == [0.75]
    with pytest.raises(InvalidHyperparameterError, match="bins=0"):
        evaluation.reliability(rewards, 0)
    for bad in (rewards[:0], rewards[0], np.zeros((2, 3))):
        with pytest.raises(ShapeError):
            evaluation.reliability(bad)


def test_pass_at_k_and_votes_at_their_bounds():
    assert many_samples.pass_at_k([0, 1, 5], 5, 5).tolist() == [0.0, 1.0, 1.0]
    np.testing.assert_allclose(many_samples.pass_at_k([0, 1, 5], 5, 1), [0.0, 0.2, 1.0])
    assert many_samples.pass_at_k([], 3, 2).shape == (0,)
    for k, n in ((0, 3), (4, 3)):
        with pytest.raises(InvalidHyperparameterError, match="take between 1 and 3"):
            many_samples.pass_at_k([1], n, k)
    for count in (-1, 4):
        with pytest.raises(ShapeError, match="of 3 samples"):
            many_samples.pass_at_k([count], 3, 1)
    rng = np.random.default_rng(0)
    votes = [[2, 2, 0], [0, 0, 0], [3, 1, 0]]
    assert many_samples.majority_at_k(votes, 4, rng).tolist() == [0.5, 0.0, 1.0]
    for bad in ({"k": 0}, {"k": 1, "draws": 0}):
        with pytest.raises(InvalidHyperparameterError, match="at least 1"):
            many_samples.majority_at_k(votes, rng=rng, **bad)
    found = many_samples.weighted_votes([[0, 2, -1, 0]], [[1.0, 0.5, 9.0, 2.0]], 3)
    assert found.tolist() == [[3.0, 0.0, 0.5]]
    with pytest.raises(ShapeError, match="answers below 2"):
        many_samples.weighted_votes([[0, 2]], [[1.0, 1.0]], 2)


def test_steps_of_a_solution_and_their_numbers():
    chances = [0.9, 0.5, 0.8]
    assert process_rewards.solution_score(chances) == pytest.approx(0.36)
    assert process_rewards.first_below(chances, 0.5) is None
    assert process_rewards.first_below(chances, 0.51) == 1
    assert process_rewards.first_below([0.49, 0.1]) == 0
    assert process_rewards.area_under_curve([1.0, 2.0, 2.0], [0, 1, 0]) == pytest.approx(0.75)
    assert math.isnan(process_rewards.area_under_curve([1.0], [1]))
    assert math.isnan(process_rewards.area_under_curve([1.0], [0]))
    with pytest.raises(ShapeError, match="one axis"):
        process_rewards.area_under_curve([[1.0]], [[1]])
    goal = process_rewards.label_objective()
    assert goal.start == pytest.approx(math.log(2)) and goal.responses == 1
    tree = collate([([1], [[2]]), ([1], [[3, 4]])])
    batch = Batch(tree, tensor([0, 1]), None, {"label": tensor([1.0, 0.25])})
    found = goal.values(tensor([2.0, -1.0]), batch)
    want = [
        math.log1p(math.exp(-2)),
        0.25 * math.log1p(math.exp(1)) + 0.75 * math.log1p(math.exp(-1)),
    ]
    np.testing.assert_allclose(found["loss"], want, rtol=1e-6)
    assert found["accuracy"].tolist() == [1.0, 1.0]


# Choices and pairs --------------------------------------------------------------------------------


def test_choosers_of_prompts_by_hand():
    chances = [[0.9, 0.1], [0.2, 0.8], [0.6, 0.5]]
    right = [[1, 0], [1, 0], [0, 0]]
    found = prompt_choice.choose_prompts(chances, right, 0)
    assert found == pytest.approx((1 / 3, 2 / 3, 2 / 3))
    assert prompt_choice.choose_prompts(chances, right, 1).on_average == 0.0
    for average in (-1, 2):
        with pytest.raises(ShapeError, match=f"the prompt is {average}"):
            prompt_choice.choose_prompts(chances, right, average)
    for bad in ([0.5, 0.5], [[1.0, 1.0], [1.0, 0.0]]):
        with pytest.raises((ShapeError, UninformativeDataError)):
            prompt_choice.fit_no_interaction(bad)


def test_a_prompt_reward_is_a_penalised_regression_on_standard_features():
    rng = np.random.default_rng(2)
    x = np.column_stack([rng.normal(2.0, 3.0, 60), np.full(60, 7.0)])
    y = (rng.random((60, 2)) < 1 / (1 + np.exp(-np.outer(x[:, 0] - 2, [0.5, -0.2])))).astype(float)
    found = prompt_choice.fit_prompt_reward(x, y, l2=0.2)
    assert found.scale.tolist() == [pytest.approx(x[:, 0].std()), 1.0]
    z = (x[:, 0] - x[:, 0].mean()) / x[:, 0].std()
    for p in range(2):

        def value(v, p=p):
            r = v[0] + v[1] * z
            return (np.log1p(np.exp(r)) - y[:, p] * r).mean() + 0.1 * v[1] ** 2

        want = minimize(value, np.zeros(2), tol=1e-12).x
        assert [found.constant[p], found.weights[0, p]] == pytest.approx(want, abs=1e-4)
        assert found.weights[1, p] == pytest.approx(0, abs=1e-9)
        r = want[0] + want[1] * (x[:3, 0] - found.centre[0]) / found.scale[0]
        np.testing.assert_allclose(found.chances(x[:3])[:, p], 1 / (1 + np.exp(-r)), atol=1e-4)


def test_densities_of_pairs_need_a_policy():
    log_p = np.log([0.5, 0.3, 0.2])
    for bad, error in (
        ((log_p, np.zeros(2)), ShapeError),
        ((np.zeros((3, 3)), np.zeros((3, 3))), ShapeError),
        ((log_p + 1e-5, np.zeros(3)), NotStochasticError),
    ):
        with pytest.raises(error):
            policy_pairs.pair_density("on-policy", *bad)
    uniform = policy_pairs.pair_density("uniform", log_p, np.zeros(3))
    np.testing.assert_allclose(uniform, np.full((3, 3), 1 / 9))
    np.testing.assert_allclose(
        policy_pairs.pair_density("PILAF", log_p, np.zeros(3)),
        np.outer(np.exp(log_p), np.exp(log_p)),
    )
    phi = np.array([[1.0, 0.0], [0.0, 1.0], [2.0, 1.0]])
    p = np.exp(log_p)
    np.testing.assert_allclose(
        policy_pairs.feature_covariance(log_p, phi), np.cov(phi.T, aweights=p, bias=True)
    )
    c, i = np.diag([2.0, 3.0]), np.diag([4.0, 1.0])
    assert policy_pairs.expected_policy_loss(c, i, 10, 0.5) == pytest.approx(0.35)


def test_ties_and_bounds_of_cross_prompt_pairs():
    records = [Preference(f"p{k}", f"good {k}", f"bad {k}") for k in range(5)]
    rng = np.random.default_rng(0)
    found = cross_prompt.cross_prompt_pairs(records, rng)
    assert len(found.records) == 5 * 14 and found.wins.sum() == 5 * (8 + 3)
    some = cross_prompt.cross_prompt_pairs(records, rng, won=3, tied=0)
    assert some.wins.tolist() == [1.0] * 15
    assert cross_prompt.cross_prompt_pairs(records, rng, won=0, tied=6).wins.tolist() == [0.5] * 30
    for bad in ({"won": 9}, {"won": -1}, {"tied": 7}, {"tied": -1}):
        with pytest.raises(InvalidHyperparameterError, match="won from 0 to 8"):
            cross_prompt.cross_prompt_pairs(records, rng, **bad)
    assert len(cross_prompt.cross_prompt_pairs(records[:3], rng).records) == 42
    with pytest.raises(InvalidDataError, match="2 records"):
        cross_prompt.cross_prompt_pairs(records[:2], rng)
    rewards = tensor([[1.0, 0.0], [2.0, 2.0]])
    loss = cross_prompt.soft_preference_loss(rewards, tensor([0.0, 0.5]))
    np.testing.assert_allclose(loss, [np.log1p(np.e), np.log(2)], rtol=1e-6)
    for wins in (tensor([1.1, 0.5]), tensor([-0.1, 0.5]), tensor([NAN, 0.5])):
        with pytest.raises(InvalidHyperparameterError, match=r"\[0, 1\]"):
            cross_prompt.soft_preference_loss(rewards, wins)
    assert cross_prompt.tied_weight(3.0, 0.0, 2.0) == pytest.approx(math.log(4.0))
    for bad in ((-1.0, 2.0, 2.0), (3.0, 0.0, 0.0), (0.0, 0.0, 0.0)):
        with pytest.raises(InvalidHyperparameterError, match="no finite weight"):
            cross_prompt.tied_weight(*bad)


# Over-optimisation --------------------------------------------------------------------------------


def test_worlds_and_curves_at_their_bounds():
    world = goodhart.World([3.0, 4.0], penalty=0.0)
    assert world.alignment(np.array([1.0, 0.0])) == 3.0
    assert world.gold([[1.0, 1.0]]).tolist() == [7.0]
    assert goodhart.World([3.0, 4.0]).gold([[1.0, 2.0]]) == pytest.approx([11 - 0.2 * 3])
    for degrees in (2.0, 1.0, NAN):
        with pytest.raises(InvalidHyperparameterError, match="variance"):
            goodhart.moments_of_max(2.0, degrees)
    for bad in ({"weights": [NAN]}, {"weights": [0.0]}, {"weights": [1.0], "penalty": INF}):
        with pytest.raises(InvalidHyperparameterError):
            goodhart.World(**bad)
    with pytest.raises(ShapeError, match="one vector"):
        goodhart.World([[1.0]])
    with pytest.raises(RewardError, match="prefers nothing"):
        world.alignment(np.array([INF, 0.0]))
    for share in (0.0, 1.0):
        with pytest.raises(InvalidHyperparameterError, match="between 0 and 1"):
            goodhart.tail_curve(world, np.ones(2), 1.0, share)
    for price in ([1.0, 0.0], [-1.0]):
        with pytest.raises(InvalidHyperparameterError, match="not above 0"):
            goodhart.tilted_curve(world, np.ones(2), price)
    drawn = goodhart.draw_world(np.random.default_rng(0), 5, 0.3, 7.0)
    assert np.linalg.norm(drawn.weights) == pytest.approx(1) and drawn.weights.shape == (5,)
    assert (drawn.penalty, drawn.degrees) == (0.3, 7.0)
    assert goodhart.distance(0.0) == 0.0
    for bad in (-1e-9, INF, NAN):
        with pytest.raises(InvalidHyperparameterError, match="has no root"):
            goodhart.distance(bad)


def test_a_fit_needs_three_points_and_something_to_explain():
    assert goodhart.fit_gao([1.0, 2.0, 3.0], [1.0, 2.0, 2.5]).n_points == 3
    assert goodhart.r_squared([1.0, 2.0, 3.0], [1.0, 2.0, 4.0]) == pytest.approx(0.5)
    assert goodhart.r_squared([1.0, 2.0, 3.0], [3.0, 2.0, 1.0]) == pytest.approx(-3.0)
    falling = goodhart.GaoFit("best of n", -1.0, 0.5, 1.0, 3)
    assert falling.peak == 0.0 and falling.predict([2.0]).tolist() == [-4.0]
    assert goodhart.GaoFit("best of n", 1.0, -0.5, 1.0, 3).peak == INF
    assert goodhart.GaoFit("rl", 0.0, 0.5, 1.0, 3).peak == pytest.approx(np.exp(-1))


# Games and welfare --------------------------------------------------------------------------------


def test_welfare_by_hand_and_its_weights():
    u, logs = np.array([[1.0, 0.0], [0.0, 1.0]]), np.log([0.5, 0.5])
    even = sc.welfare_policy(u, logs, 0.5)
    np.testing.assert_allclose(even.policy, 0.5)
    assert even.weights.tolist() == [0.5, 0.5] and even.welfare == pytest.approx(0.5)
    one = sc.welfare_policy(u, logs, 0.5, "average", [0.75, 0.25])
    odds = np.exp(0.5 / 0.5)
    np.testing.assert_allclose(one.policy, [odds / (1 + odds), 1 / (1 + odds)])
    np.testing.assert_allclose(one.utilities, one.policy)
    kl = float(one.policy @ (np.log(one.policy) - logs))
    assert one.welfare == pytest.approx(one.policy @ [0.75, 0.25] - 0.5 * kl)
    assert one.gap == pytest.approx(0, abs=1e-12)
    np.testing.assert_allclose(sc.welfare_policy(u, logs, 0.5, "maxmin").weights, 0.5, atol=1e-6)
    for shares in ([1.0, 0.0], [0.5, 0.6], [1.0]):
        with pytest.raises(NotStochasticError, match="above 0"):
            sc.welfare_policy(u, logs, 0.5, "average", shares)
    with pytest.raises(DivergentPartitionError, match="indifferent"):
        sc.welfare_policy(np.array([[1.0, 1.0], [0.0, 1.0]]), logs, 0.5, "nash")


def test_games_of_one_step_by_hand():
    p = np.array([[0.5, 0.8], [0.2, 0.5]])
    assert sc.condorcet_winner(p) == 0 and sc.majority_cycles(p) == []
    assert sc.condorcet_winner(np.full((2, 2), 0.5)) is None
    assert sc.exploitability([0.0, 1.0], p) == pytest.approx(0.3)
    path, average = sc.self_play(p, 2, 1.0, [0.25, 0.75])
    np.testing.assert_allclose(path[0], [0.25, 0.75])
    gain = p @ path[0]
    want = path[0] * np.exp(gain)
    np.testing.assert_allclose(path[1], want / want.sum())
    np.testing.assert_allclose(average, path.mean(axis=0))
    assert sc.self_play(p, 1, 1.0)[0].tolist() == [[0.5, 0.5]]
    for steps, rate in ((0, 1.0), (1, 0.0)):
        with pytest.raises(InvalidHyperparameterError, match="rate above 0"):
            sc.self_play(p, steps, rate)
    logs = np.log([0.5, 0.5])
    other = sc.psi_policy(p, logs, 1.0, behaviour=[0.0, 1.0])
    want = np.exp(p[:, 1])
    np.testing.assert_allclose(other, want / want.sum())
    for call in (lambda: sc.psi_policy(p, logs, 0.0), lambda: sc.regularised_nash(p, logs, -1.0)):
        with pytest.raises(InvalidHyperparameterError, match="tau is"):
            call()


# Self-play, staleness, coins ----------------------------------------------------------------------


def test_losses_of_self_play_by_hand():
    policy, opponent = tensor([[-1.0, -2.0]]), tensor([[-1.5, -1.0]])
    f = 0.4 * (policy - opponent)[0]
    want = math.log1p(math.exp(-f[0])) + math.log1p(math.exp(f[1]))
    assert spin.gsil_loss(policy, opponent, 0.4).tolist() == pytest.approx([want])
    p, q = np.log([0.7, 0.3]), np.log([0.4, 0.6])
    found = np.exp(spin.spin_update(p, q, 0.5))
    ratio = np.exp(q) * (np.exp(p) / np.exp(q)) ** 2
    np.testing.assert_allclose(found, ratio / ratio.sum())
    best = spin.spin_population_loss(spin.spin_update(p, q, 2.0), p, q, 2.0)
    assert best < spin.spin_population_loss(p, p, q, 2.0)
    np.testing.assert_allclose(np.exp(spin.gsil_update(p, q, 1.0)), np.exp(p), atol=1e-5)
    for lam in (0.0, -1.0, INF):
        with pytest.raises(InvalidHyperparameterError, match="lam is"):
            spin.spin_update(p, q, lam)
    for bad in (torch.ones(1, 3), torch.ones(2, 2)):
        with pytest.raises(ShapeError, match="pairs, 2"):
            spin.gsil_loss(bad, torch.ones(1, 3 if bad.shape[1] == 3 else 2), 1.0)
    with np.errstate(divide="ignore"):
        never = np.log([1.0, 0.0])
    np.testing.assert_allclose(np.exp(spin.spin_update(never, q, 1.0)), [1.0, 0.0])
    for call in (spin.spin_update, spin.gsil_update):
        with pytest.raises(InfiniteDivergenceError):
            call(p, never, 1.0)
    with pytest.raises(ShapeError, match="same responses"):
        spin.spin_update(p, np.log([0.2, 0.3, 0.5]), 1.0)


def test_old_samples_at_their_bounds():
    lm = small()
    for lag, steps in ((-1, 1), (0, 0)):
        with pytest.raises(InvalidHyperparameterError, match="needs a lag from 0"):
            staleness.asynchronous_ascent(lm, np.zeros(7), lag=lag, steps=steps, rate=1.0)
    for clip in (0.0, 1.0):
        with pytest.raises(InvalidHyperparameterError, match="0 < clip < 1"):
            staleness.stale_gradient(lm, lm.policy, lm.policy, np.zeros(7), "clip", clip)
    with pytest.raises(InvalidHyperparameterError, match="use plain, ratio or clip"):
        staleness.stale_gradient(lm, lm.policy, lm.policy, np.zeros(7), "none")
    log_p = lm.sequence_log_probabilities()
    assert staleness.effective_share(log_p, log_p) == pytest.approx(1.0)
    with np.errstate(divide="ignore"):
        half = np.log([0.5, 0.5, 0.0])
    assert staleness.effective_share(np.log([0.25, 0.75, 1e-300]), half) == pytest.approx(0.8)
    with pytest.raises(ShapeError, match="same responses"):
        staleness.effective_share(log_p, half)
    logits = np.full((lm.n_states, 3), 5.0)
    found = staleness.softmax_policy(lm, logits)
    np.testing.assert_allclose(found[0], 1 / 3)
    seen = []
    staleness.asynchronous_ascent(
        lm, np.arange(7.0), lag=1, steps=3, rate=0.5, look=lambda now, old: seen.append((now, old))
    )
    assert np.array_equal(seen[1][1], seen[0][0]) and np.array_equal(seen[2][1], seen[1][0])


def test_groups_of_coins_are_counted_once_and_refused_by_name():
    paid, unpaid, weight = spurious.all_groups(np.array([0.25, 0.75]), 2)
    assert len(weight) == 10 and weight.sum() == pytest.approx(1)
    both = (paid[:, 0] == 1) & (unpaid[:, 1] == 1)
    assert weight[both] == pytest.approx([2 * 0.25 * 0.75 / 4])
    assert (paid + unpaid).sum(axis=1).tolist() == [2] * 10
    for chances in ([0.5, 0.6], [1.0, 0.0], [[0.5, 0.5]]):
        with pytest.raises(NotStochasticError, match="positive numbers"):
            spurious.expected_update(chances, 2, steps=1, rate=1.0)
    with pytest.raises(InvalidHyperparameterError, match="a group of 1"):
        spurious.expected_update([0.5, 0.5], 1, steps=1, rate=1.0)
    for bad in ({"steps": 0}, {"rate": 0.0}, {"clip": (0.0, 0.2)}, {"clip": (0.2, 0.0)}):
        with pytest.raises(InvalidHyperparameterError, match="positive numbers"):
            spurious.expected_update([0.5, 0.5], 2, **({"steps": 1, "rate": 1.0} | bad))
    path = spurious.simulate(
        [0.3, 0.7], 2, np.random.default_rng(0), runs=4, iterations=3, steps=1, rate=0.1
    )
    assert path.shape == (4, 4, 2) and np.allclose(path.sum(axis=2), 1)
    np.testing.assert_allclose(path[0], [[0.3, 0.7]] * 4)


# Ranks, mistakes, tied tables, credit -------------------------------------------------------------


def test_rankings_refuse_what_cannot_be_ranked():
    logps, lengths = torch.zeros(1, 3), torch.ones(1, 3, dtype=torch.long)
    for bad, error in (
        ((logps[:, :1], logps[:, :1], lengths[:, :1]), ShapeError),
        ((logps, logps, lengths * 0), ResponseError),
        ((logps, logps + INF, lengths), RewardError),
    ):
        with pytest.raises(error):
            rrhf.ranking_loss(*bad)
    for weight in (-0.1, INF, NAN):
        with pytest.raises(InvalidHyperparameterError, match="0 or more"):
            rrhf.rrhf_loss(logps, logps, lengths, weight)
    assert rrhf.rrhf_loss(logps - 2, logps, lengths, 0.0).tolist() == [0.0]
    with pytest.raises(InvalidHyperparameterError, match="2 or more"):
        rrhf.objective(1)
    assert rrhf.objective(2).responses == 2
    found = rrhf.ranking_accuracy(tensor([[-1.0, -1.0]]), tensor([[0.0, 1.0]]), lengths[:, :2])
    assert found.tolist() == [0.5]


def chain(*steps, question="Input: ( [ ] )", mistake=None):
    return ReasoningTrace(question, tuple(steps), None, "", mistake)


@pytest.mark.parametrize(
    ("steps", "place"),
    [
        (("( ; stack: (", "[ ; stack: ( [", "] ; stack: (", ") ; stack: empty"), None),
        (("( ; stack: (", "[ ; stack: [", "] ; stack: ("), 1),
        (("( ; stack: (", "] ; stack: ("), 1),
        (("( ; stack: (", "We go on.", "[ ; stack: ( ["), None),
        (("( ; stack: (", "So the final stack is ( [."), 1),
        (("( ; stack: (", "So the final stack is (. Done ["), None),
        (("( ; stack: (", "[ ; stack: ( [", "we will need to pop out [ (."), None),
        (("( ; stack: (", "[ ; stack: ( [", "we will need to pop out ( [."), 2),
        (("( ; stack: (", "[ ; stack: ( [", "] ; stack: (", ") ; stack:", "( ; stack: ("), 4),
    ],
)
def test_a_stack_is_followed_symbol_by_symbol(steps, place):
    assert mistake_finding.stack_mistake(chain(*steps)) == place


def test_a_closing_symbol_needs_its_partner():
    wrong = chain("( ; stack: (", "] ; stack:", question="Input: ( ]")
    assert mistake_finding.stack_mistake(wrong) == 1
    empty = chain(") ; stack:", question="Input: )")
    assert mistake_finding.stack_mistake(empty) == 0


@pytest.mark.parametrize(
    ("steps", "place"),
    [
        (("1 + 2 = 3", "3 * 2 = 6"), None),
        (("1 + 2 = 3", "3 * 2 = 7"), 1),
        (("A = 1 + 2 = 3", "A * 2 = 6"), None),
        (("A = 1 + 2 = 3", "A * 2 = 7"), 1),
        (("A = 1 + 2", "A + 1 = 4"), None),
        (("A = 2", "A = 5", "A + 1 = 6"), None),
        (("no numbers here", "-2 - 1 = -3."), None),
    ],
)
def test_equations_keep_the_names_that_they_set(steps, place):
    assert mistake_finding.equation_mistake(chain(*steps)) == place


def test_a_classifier_of_steps_needs_right_and_wrong_ones():
    with pytest.raises(UninformativeDataError, match="no mistake"):
        mistake_finding.fit_step_classifier([chain("a", "b")])
    with pytest.raises(UninformativeDataError, match="nothing else"):
        mistake_finding.fit_step_classifier([chain("a", "b", mistake=0)])
    traces = [chain("good", "bad", "good", mistake=1), chain("good", "good")] * 5
    found = mistake_finding.fit_step_classifier(traces, l2=0.01)
    assert found.first_mistake(traces[0]) == 1 and found.first_mistake(traces[1]) is None
    exact = mistake_finding.found_exactly(traces, lambda trace: 1)
    assert exact.tolist() == [True, False] * 5


def test_a_tied_policy_shares_rows_and_refuses_what_it_cannot_follow():
    lm = small()
    tied = tied_policy.TiedPolicy(lm, np.zeros(lm.n_states, dtype=int))
    assert tied.n_groups == 1
    log_p = lm.sequence_log_probabilities()
    rho = tied_policy.response_occupancy(lm, log_p)
    assert rho.sum() == pytest.approx(np.exp(log_p) @ lm.lengths[lm.responses])
    live = lm.children[:, 0] >= 0
    cover = tied.cover(log_p)
    np.testing.assert_allclose(cover[live], np.tile(rho.sum(axis=0) / rho.sum(), (live.sum(), 1)))
    np.testing.assert_array_equal(cover[~live], lm.policy[~live])
    np.testing.assert_allclose(tied.policy(np.zeros((1, 3)))[live], 1 / 3)
    for groups in (np.zeros(2, dtype=int), np.full(lm.n_states, -1)):
        with pytest.raises(ShapeError, match="for each prefix"):
            tied_policy.TiedPolicy(lm, groups)
    with pytest.raises(InvalidHyperparameterError, match=r"expected logits \(1, 3\)"):
        tied.seek(log_p, np.zeros((2, 3)))
    with pytest.raises(NotConvergedError, match="raise max_iterations"):
        tied.seek(log_p, np.array([[5.0, 0.0, 0.0]]), max_iterations=1)
    certain = np.full(7, -np.inf)
    certain[0] = 0.0
    with pytest.raises(InfiniteDivergenceError, match="never writes response 1,"):
        tied.seek(certain, np.zeros((1, 3)))
    with pytest.raises(ShapeError, match="log_p has shape"):
        tied_policy.response_occupancy(lm, np.log([0.5, 0.5]))


def test_token_rewards_of_a_potential_are_told_from_others():
    lm = small()
    reward = np.random.default_rng(0).normal(size=7)
    changes = credit.value_change_rewards(lm, reward)
    assert credit.transition_spread(lm, changes) == pytest.approx(0, abs=1e-12)
    potential = credit.implied_potential(lm, reward, changes)
    assert potential[0] == 0 and not potential[lm.responses].any()
    np.testing.assert_allclose(potential[1:3], lm.prefix_values(reward)[1:3], atol=1e-9)
    with pytest.raises(RewardError, match="sums miss the reward by 1,"):
        credit.implied_potential(lm, reward + 1.0, changes)
    attention = credit.content_attention(lm, np.zeros(3))
    shares = credit.attention_rewards(lm, reward, attention, 1.0)
    np.testing.assert_allclose(shares.sum(axis=1), reward)
    last = credit.attention_rewards(lm, reward, attention, 0.0)
    np.testing.assert_allclose(last[np.arange(7), lm.lengths[lm.responses] - 1], reward)
    assert credit.rewards_to_go([[1.0, 2.0, 3.0]]).tolist() == [[6.0, 5.0, 3.0]]
    for bad in (np.zeros(2), np.zeros((3, 3))):
        with pytest.raises(ShapeError):
            credit.content_attention(lm, bad)
    with pytest.raises(ShapeError, match="token rewards"):
        credit.transition_spread(lm, np.zeros((7, 3)))


def test_leaving_one_out_looks_at_the_samples_that_began_alike():
    lm = small()
    ids = lm.response_ids()
    place = {tuple(y): k for k, y in enumerate(ids)}
    sampled = [place[0, 0], place[0, 1], place[1, 0]]
    found = credit.prefix_leave_one_out(lm, sampled, [1.0, 2.0, 6.0])
    np.testing.assert_allclose(found, [[1 - 4, 1 - 2], [2 - 3.5, 2 - 1], [6 - 1.5, 6 - 1.5]])
    for bad in (([0], [1.0]), ([0, 1], [1.0])):
        with pytest.raises(ShapeError, match="need 2 or more"):
            credit.prefix_leave_one_out(lm, *bad)
    weights = np.ones((7, 2))
    mean, variance = credit.gradient_moments(lm, weights * 3.0)
    np.testing.assert_allclose(mean, 0, atol=1e-12)  # the score has mean 0
    assert variance > 0
    everyone = credit.sampled_gradient(lm, [0], weights[:1])
    assert everyone[0].sum() == pytest.approx(0)
    earned = credit.ascend(lm, np.arange(7.0), np.zeros((7, 2)), steps=2, step_size=1.0)
    np.testing.assert_allclose(earned, np.exp(lm.sequence_log_probabilities()) @ np.arange(7.0))
    ends = np.zeros((7, 2))
    ends[np.arange(7), lm.lengths[lm.responses] - 1] = np.arange(7.0)
    one, other = (
        credit.ascend(lm, np.arange(7.0), ends, steps=3, step_size=0.1, to_go=to_go)
        for to_go in (True, False)
    )
    np.testing.assert_allclose(one, other)  # all is paid at the end
    assert (np.diff(one) > 0).all() and len(one) == 4


def test_a_model_without_a_width_takes_no_regularised_head():
    from irlbook.errors import UnsupportedModelError
    from irlbook.posttraining.regularised_reward import RegularisedScorer, regularised_reward_loss

    model = torch.nn.Linear(1, 1)
    model.config = SimpleNamespace(hidden_size=4)
    assert RegularisedScorer(model, torch.ones(1, 4)).head.shape == (1, 4)
    for shape in ((1, 3), (4,), (2, 4)):
        with pytest.raises(UnsupportedModelError, match="a reward head is"):
            RegularisedScorer(model, torch.ones(shape))
    for weight in (-0.1, 1.1):
        with pytest.raises(InvalidHyperparameterError, match=r"\[0, 1\]"):
            regularised_reward_loss(PAIRS, PAIRS[:, 0], weight)
    with pytest.raises(ShapeError, match="one a pair"):
        regularised_reward_loss(PAIRS, POLICY[:3])
    plain = regularised_reward_loss(PAIRS, PAIRS[:, 0] * NAN, 0.0)
    torch.testing.assert_close(plain, reward_model.bradley_terry_loss(PAIRS))
