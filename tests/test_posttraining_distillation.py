"""BoNBoN: the margin by enumeration, the loss by hand, its optimum against the best of n."""

from itertools import product

import numpy as np
import pytest
import torch

from irlbook.errors import (
    InvalidHyperparameterError,
    NotConvergedError,
    RewardError,
    ShapeError,
)
from irlbook.lm.enumerable import EnumerableLM, best_of_n, kl_from_logps, tilted
from irlbook.lm.logprobs import ResponseScorer
from irlbook.lm.token_table import TokenTable
from irlbook.lm.trees import collate
from irlbook.posttraining.best_of_n import best_of_n_win_rate, win_rate
from irlbook.posttraining.distillation import (
    best_and_worst,
    best_of_n_beta,
    best_of_n_margin,
    bonbon_loss,
    bonbon_optimum,
    bond_reward,
    objective,
)
from irlbook.training import Batch, TrainingConfig, train


def language(seed: int, levels: int | None = None):
    """(lm, (R,) log-probabilities, (R,) scores); distinct scores without `levels`."""
    rng = np.random.default_rng(seed)
    lm = EnumerableLM.create(("a", "b", "end"), 2, lambda x: rng.dirichlet(np.ones(3), len(x)))
    size = len(lm.responses)
    scores = rng.permutation(size) if levels is None else rng.integers(0, levels, size)
    return lm, lm.sequence_log_probabilities(), scores.astype(float)


def fine(size: int = 400):
    return np.full(size, -np.log(size)), np.arange(size, dtype=float)


@pytest.mark.parametrize(("seed", "n", "levels"), [(0, 2, 3), (1, 3, None), (2, 4, 2), (3, 3, 4)])
def test_best_and_worst_over_all_groups(seed, n, levels):
    _, log_p, scores = language(seed, levels)
    p, wanted = np.exp(log_p), np.zeros((len(log_p),) * 2)
    for group in product(range(len(p)), repeat=n):
        drawn = np.array(group)
        given = scores[drawn]
        if given.min() < given.max():
            wanted[drawn[given.argmax()], drawn[given.argmin()]] += np.prod(p[drawn])
    np.testing.assert_allclose(best_and_worst(log_p, scores, n), wanted, atol=1e-12)


@pytest.mark.parametrize("n", [2, 4, 8])
def test_the_margin_is_that_of_the_best_of_n(n):
    """Without ties E[log-ratio of best - of worst] is (n - 1) H_{n-1}; with ties it is less."""

    def margin(log_p, scores):
        ratio = best_of_n(log_p, scores, n) - log_p
        return (best_and_worst(log_p, scores, n) * (ratio[:, None] - ratio[None])).sum()

    found = [margin(*fine(size)) for size in (10, 100, 400)]
    assert (np.diff(found) > 0).all() and found[-1] < best_of_n_margin(n)
    assert found[-1] == pytest.approx(best_of_n_margin(n), rel=0.02)
    assert all(margin(*language(s, 3)[1:]) < best_of_n_margin(n) for s in range(5))
    assert best_of_n_beta(n) == pytest.approx(1 / (2 * best_of_n_margin(n)))


def test_known_numbers():
    assert best_of_n_margin(2) == 1.0
    assert best_of_n_beta(8) == pytest.approx(0.0275482094)  # of the published experiments


def test_loss_by_hand():
    """n = 2: target 1. Log-ratios 3 and -1: margin 4, squared error 9; the best costs 2 nats."""
    policy = torch.tensor([[-2.0, -6.0]])
    reference = torch.tensor([[-5.0, -5.0]])
    assert bonbon_loss(policy, reference, 2, alpha=0.25).tolist() == [0.25 * 2 + 0.75 * 9]
    assert bonbon_loss(policy, reference, 2, alpha=1.0).tolist() == [2.0]


@pytest.mark.parametrize("levels", [None, 3])
def test_sft_alone_has_the_best_of_n_for_its_optimum(levels):
    _, log_p, scores = language(1, levels)
    found = bonbon_optimum(log_p, scores, 3, alpha=1.0)
    np.testing.assert_allclose(np.exp(found), np.exp(best_of_n(log_p, scores, 3)), atol=1e-7)


def test_the_margin_alone_has_another_optimum():
    """n = 2: the best regression on a constant margin is linear in F, best of n is log F."""
    log_p, scores = fine()
    found = bonbon_optimum(log_p, scores, 2, alpha=0.0)
    f = (np.arange(len(log_p)) + 0.5) / len(log_p)
    linear, _ = tilted(log_p, 2 * f, 1.0)
    # Both draws equal never happens in the continuum; here it does once in 400.
    assert kl_from_logps(found, linear) < 1e-4
    target = best_of_n(log_p, scores, 2)
    assert kl_from_logps(target, found) > 100 * kl_from_logps(found, linear)
    mixed = [kl_from_logps(target, bonbon_optimum(log_p, scores, 2, a)) for a in (0, 0.5, 0.99, 1)]
    assert (np.diff(mixed) < 0).all() and mixed[-1] < 1e-9


def test_the_margin_alone_treats_best_and_worst_alike():
    """Its optimum turns into its reciprocal when the scores are reversed; the best of n does not.

    With growing n that costs more and more: pairs lie at the two ends, the middle is free.
    """
    log_p, scores = fine(200)
    losses = []
    for n in (4, 8, 16):
        ratio = bonbon_optimum(log_p, scores, n, alpha=0.0) - log_p
        np.testing.assert_allclose(ratio - ratio.mean(), -(ratio - ratio.mean())[::-1], atol=1e-3)
        found = win_rate(bonbon_optimum(log_p, scores, n, alpha=0.005), log_p, scores)
        losses.append(best_of_n_win_rate(log_p, scores, n) - found)
    assert losses[0] < 0 < 0.05 < losses[1] < losses[2]


@pytest.mark.parametrize("n", [2, 4, 8])
def test_the_optimum_is_near_the_best_of_n_all_the_same(n):
    log_p, scores = fine(200)
    target = best_of_n(log_p, scores, n)
    found = bonbon_optimum(log_p, scores, n, alpha=0.005)
    assert 0.001 < kl_from_logps(target, found) < 0.5 * kl_from_logps(target, log_p)


def test_the_optimum_is_a_minimum_of_the_loss():
    """Against the torch loss itself, summed over all pairs: no direction goes down."""
    _, log_p, scores = language(5)
    n, alpha = 3, 0.3
    pairs = torch.tensor(best_and_worst(log_p, scores, n))
    best = torch.tensor(np.exp(best_of_n(log_p, scores, n)))
    base = torch.tensor(log_p)

    def loss(z):
        logp = z.log_softmax(0)
        size = len(z)
        policy = torch.stack([logp[:, None].expand(size, size), logp[None].expand(size, size)], -1)
        reference = torch.stack(
            [base[:, None].expand(size, size), base[None].expand(size, size)], -1
        )
        both = [x.reshape(-1, 2) for x in (policy, reference)]
        square = bonbon_loss(*both, n, alpha=0.0).view(size, size)
        return -alpha * best @ logp + (1 - alpha) * (pairs * square).sum()

    z = torch.tensor(bonbon_optimum(log_p, scores, n, alpha)).requires_grad_()
    loss(z).backward()
    assert z.grad.abs().max() < 1e-7
    for seed in range(5):
        move = torch.randn(len(z), generator=torch.Generator().manual_seed(seed)).double()
        assert loss(z.detach() + 0.1 * move) > loss(z.detach())


def test_trained_in_the_loop_it_reaches_the_optimum():
    """A table of logits, fed 150 pairs in the shares of a sample, comes close to enumeration."""
    lm, log_p, scores = language(7)
    n, rng = 3, np.random.default_rng(0)
    drawn = rng.choice(len(log_p), (20_000, n), p=np.exp(log_p))
    given = scores[drawn]
    apart = given.max(axis=1) > given.min(axis=1)
    rows = np.arange(len(drawn))
    best, worst = drawn[rows, given.argmax(axis=1)], drawn[rows, given.argmin(axis=1)]
    ids = lm.response_ids()
    pairs, counts = np.unique(np.stack([best, worst], 1)[apart], axis=0, return_counts=True)
    groups = [
        ((0,), [ids[i], ids[j]])
        for (i, j), c in zip(pairs, counts, strict=True)
        for _ in range(max(1, round(150 * c / counts.sum())))
    ]
    table = TokenTable(lm)
    settings = TrainingConfig(
        steps=250, batch_size=len(groups), learning_rate=0.05, weight_decay=0.0, progress=False
    )
    run = train(ResponseScorer(table), groups, objective(n, alpha=0.5), settings)
    found = table.log_probabilities().detach().numpy()
    wanted = bonbon_optimum(log_p, scores, n, alpha=0.5)
    assert run.history[0]["margin"] == pytest.approx(0, abs=1e-6)
    assert run.history[-1]["loss"] < run.history[0]["loss"]
    assert kl_from_logps(wanted, found) < 0.1 * kl_from_logps(wanted, log_p)


def test_the_weight_of_the_best_is_small_if_none_is_given_and_may_be_nothing_or_all():
    policy, reference = torch.tensor([[-2.0, -6.0]]), torch.tensor([[-5.0, -5.0]])
    assert bonbon_loss(policy, reference, 2).item() == pytest.approx(0.005 * 2 + 0.995 * 9)
    assert bonbon_loss(policy, reference, 2, alpha=0.0).tolist() == [9.0]
    assert objective(2).name == "bonbon(n=2, alpha=0.005)"
    for alpha in (0.0, 1.0):
        assert objective(2, alpha).needs_reference and objective(2, alpha).responses == 2
    tree = collate([((0,), [[1], [2, 3]]), ((0,), [[2], [1]])])
    batch = Batch(tree, torch.tensor([0, 1]), torch.tensor([[-5.0, -5.0], [-1.0, -1.0]]), {})
    found = objective(3).values(torch.tensor([-2.0, -6.0, -1.0, -3.0]), batch)
    assert found["margin"].tolist() == [4.0, 2.0] and found["target"].tolist() == [3.0, 3.0]
    assert found["chosen_logp"].tolist() == [-2.0, -1.0]
    squares = torch.tensor([(4.0 - 3.0) ** 2, (2.0 - 3.0) ** 2])
    torch.testing.assert_close(found["loss"], 0.005 * torch.tensor([2.0, 1.0]) + 0.995 * squares)


def test_an_optimum_that_is_not_reached_is_named():
    _, log_p, scores = language(5)
    with pytest.raises(NotConvergedError, match="raise max_iterations"):
        bonbon_optimum(log_p, scores, 3, 0.3, max_iterations=1)
    for alpha in (0.0, 1.0):
        assert np.exp(bonbon_optimum(log_p, scores, 3, alpha)).sum() == pytest.approx(1)


@pytest.mark.parametrize("levels", [None, 3])
def test_best_of_n_is_rlhf_with_ranks_for_a_reward(levels):
    _, log_p, scores = language(2, levels)
    reward = bond_reward(log_p, scores, 4)
    found, log_partition = tilted(log_p, reward, 1.0)
    assert log_partition == pytest.approx(0, abs=1e-12)
    np.testing.assert_allclose(found, best_of_n(log_p, scores, 4), atol=1e-12)
    p = np.exp(log_p)
    upto = np.array([p[scores <= s].sum() for s in scores])
    below = np.array([p[scores < s].sum() for s in scores])
    powers = sum(upto ** (4 - i) * below ** (i - 1) for i in range(1, 5))
    np.testing.assert_allclose(reward, np.log(powers), atol=1e-12)
    np.testing.assert_allclose(bond_reward(log_p, np.exp(scores), 4), reward, atol=1e-12)


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: best_of_n_margin(1), InvalidHyperparameterError, "n >= 2"),
        (lambda: bonbon_loss(PAIR, PAIR, 4, alpha=1.5), InvalidHyperparameterError, "weight"),
        (lambda: bonbon_loss(PAIR[:, :1], PAIR[:, :1], 4), ShapeError, "pairs, 2"),
        (lambda: objective(1), InvalidHyperparameterError, "n >= 2"),
        (lambda: objective(4, -0.1), InvalidHyperparameterError, "weight"),
        (lambda: best_and_worst(np.zeros(2), np.zeros(3), 2), ShapeError, "responses"),
        (lambda: bonbon_optimum(HALF, np.zeros(2), 2, 0.5), RewardError, "score the same"),
        (lambda: bonbon_optimum(HALF, np.arange(2), 2, 2.0), InvalidHyperparameterError, "weight"),
    ],
)
def test_bad_input_is_named(call, error, match):
    with pytest.raises(error, match=match):
        call()


PAIR = torch.zeros(1, 2)
HALF = np.log([0.5, 0.5])
