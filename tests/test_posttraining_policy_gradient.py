"""Policy gradients against the exact gradient of an enumerable model, and against hand figures."""

import itertools

import numpy as np
import pytest
import torch
from torch import tensor

from irlbook.errors import InvalidHyperparameterError, RewardError, SamplingError, ShapeError
from irlbook.lm.enumerable import EnumerableLM
from irlbook.lm.logprobs import token_logps
from irlbook.lm.token_table import TokenTable
from irlbook.lm.trees import collate
from irlbook.posttraining import policy_gradient as pg

RNG = np.random.default_rng(0)
LM = EnumerableLM.create(("a", "end"), 2, lambda rows: RNG.dirichlet(np.ones(2), len(rows)))
TABLE = TokenTable(LM)
IDS = LM.response_ids()
P = np.exp(LM.sequence_log_probabilities())
REWARD = torch.tensor([1.0, -0.5, 2.0], dtype=torch.float64)
EXACT = LM.policy_gradient(REWARD.numpy())


def distribution(advantage, k=2, normalisation="constant", constant=1.0):
    """(mean, variance summed over logits) of the ascent direction, over all k-tuples."""
    mean, square = np.zeros_like(EXACT), 0.0
    for pick in itertools.product(range(len(IDS)), repeat=k):
        tree = collate([((0,), [IDS[i] for i in pick])])
        a = advantage(REWARD[list(pick)][None])[0]
        losses = pg.reinforce_loss(token_logps(TABLE, tree), pg.per_token(a, tree.lengths))
        loss = pg.aggregate(losses, tree.lengths, normalisation, constant)
        g = -torch.autograd.grad(loss, TABLE.logits)[0].numpy()
        mass = P[list(pick)].prod()
        mean, square = mean + mass * g, square + mass * (g**2).sum()
    return mean, square - (mean**2).sum()


def scores():
    logp = TABLE.log_probabilities()
    rows = [torch.autograd.grad(x, TABLE.logits, retain_graph=True)[0].numpy() for x in logp]
    return np.array(rows).reshape(len(rows), -1)


def test_unbiased_estimators_have_the_exact_gradient():
    greedy = tensor([2.0], dtype=torch.float64)
    for advantage in (
        lambda r: pg.reinforce_advantage(r, 0.7),
        lambda r: pg.remax_advantage(r, greedy),
        pg.rloo_advantage,
    ):
        np.testing.assert_allclose(distribution(advantage)[0], EXACT, atol=1e-12)


def test_dr_grpo_is_shrunk_and_grpo_and_length_normalisation_are_biased():
    plain = distribution(lambda r: pg.grpo_advantage(r, scale=False), k=3)[0]
    np.testing.assert_allclose(plain, 2 / 3 * EXACT, atol=1e-12)

    def cosine(g):
        return (g * EXACT).sum() / np.linalg.norm(g) / np.linalg.norm(EXACT)

    assert cosine(distribution(pg.grpo_advantage, k=3)[0]) < 0.9999
    assert cosine(distribution(pg.rloo_advantage, 2, "sequence")[0]) < 0.9999


def test_variances_are_the_closed_forms():
    s, r, g2 = scores(), REWARD.numpy(), (EXACT**2).sum()
    one = (P * (r - 0.7) ** 2 * (s**2).sum(1)).sum() - g2
    assert distribution(lambda x: pg.reinforce_advantage(x, 0.7))[1] == pytest.approx(one / 2)
    gap = (r[:, None] - r) ** 2 * ((s[:, None] - s) ** 2).sum(-1)
    assert distribution(pg.rloo_advantage)[1] == pytest.approx(
        (P[:, None] * P * gap).sum() / 4 - g2
    )


def test_rloo_is_leave_one_out():
    r = torch.tensor(np.random.default_rng(1).normal(size=(3, 4)))
    others = torch.stack([r[:, [j for j in range(4) if j != i]].mean(1) for i in range(4)], 1)
    torch.testing.assert_close(pg.rloo_advantage(r), r - others)


def test_constant_groups_are_zero_and_counted():
    r = tensor([[0.1] * 3, [0.0, 1.0, 2.0]], requires_grad=False)
    assert pg.constant_groups(r).tolist() == [True, False]
    assert pg.grpo_advantage(r).tolist() == [[0, 0, 0], [-1, 0, 1]]
    naive = (r - r.mean(1, keepdim=True)) / r.std(1, keepdim=True)
    assert not torch.equal(naive[0], torch.zeros(3))  # NaN, or rounding blown up


def test_the_three_normalisations_by_hand():
    losses, lengths = tensor([1.0, 2.0, 3.0, 6.0]), tensor([3, 1])
    assert pg.aggregate(losses, lengths, "sequence") == pytest.approx((2 + 6) / 2)
    assert pg.aggregate(losses, lengths, "token") == pytest.approx(12 / 4)
    assert pg.aggregate(losses, lengths, "constant", 5) == pytest.approx(12 / (2 * 5))


def test_the_clip_stops_the_gradient_only_when_active_and_the_sign_agrees():
    ratio = tensor([1.5, 1.5, 0.5, 0.5, 1.1, 1.25])
    a = tensor([1.0, -1.0, 1.0, -1.0, 1.0, 1.0])
    logps = ratio.log().requires_grad_()
    for high, last in ((0.2, 0.0), (0.28, -1.25)):  # clip-higher lets the last one through
        loss = pg.clipped_surrogate(logps, torch.zeros(6), a, 0.2, high)
        (g,) = torch.autograd.grad(loss.sum(), logps)
        torch.testing.assert_close(g, tensor([0.0, 1.5, -0.5, 0.0, -1.1, last]))


def test_on_policy_the_surrogate_has_the_gradient_of_reinforce():
    logps = tensor([-1.0, -2.0], requires_grad=True)
    a = tensor([0.3, -0.4])
    (g,) = torch.autograd.grad(pg.clipped_surrogate(logps, logps, a).sum(), logps)
    torch.testing.assert_close(g, -a)


def test_gae_on_a_ragged_batch():
    r, v, n = tensor([0.0, 1.0, 3.0]), tensor([0.5, 0.2, 1.0]), tensor([2, 1])
    a, target = pg.token_gae(r, v, n, lam=1.0)
    torch.testing.assert_close(a, tensor([0.5, 0.8, 2.0]))  # return to go - V
    torch.testing.assert_close(target, tensor([1.0, 1.0, 3.0]))
    torch.testing.assert_close(pg.token_gae(r, v, n, lam=0.0)[0], tensor([-0.3, 0.8, 2.0]))


def test_value_loss_and_overlong_penalty_by_hand():
    v = pg.value_loss(tensor([1.0, 0.1]), torch.zeros(2), tensor([1.0, 1.0]))
    torch.testing.assert_close(v, tensor([0.32, 0.405]))
    p = pg.overlong_penalty(tensor([5, 8, 9, 10, 12]), 10, 2)
    torch.testing.assert_close(p, tensor([0.0, 0.0, -0.5, -1.0, -1.0]))


def test_a_missing_temperature_is_caught():
    tree = collate([((0,), IDS)])
    drawn = token_logps(TABLE, tree, 0.6)
    pg.check_fresh(token_logps(TABLE, tree, 0.6), drawn.detach())
    with pytest.raises(SamplingError, match="temperature"):
        pg.check_fresh(token_logps(TABLE, tree), drawn.detach())


def test_named_errors():
    with pytest.raises(RewardError):
        pg.rloo_advantage(tensor([[1.0, float("nan")]]))
    with pytest.raises(ShapeError, match="k >= 2"):
        pg.grpo_advantage(tensor([[1.0]]))
    with pytest.raises(InvalidHyperparameterError, match="positive constant"):
        pg.aggregate(torch.ones(2), tensor([2]), "constant")
