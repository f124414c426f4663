"""RRHF by hand: value, gradient, and the mistakes that look like it."""

import numpy as np
import pytest
import torch

from irlbook.errors import InvalidHyperparameterError, ResponseError, RewardError, ShapeError
from irlbook.lm.enumerable import EnumerableLM
from irlbook.lm.logprobs import ResponseScorer
from irlbook.lm.token_table import TokenTable
from irlbook.lm.trees import collate
from irlbook.posttraining.rrhf import objective, ranking_accuracy, ranking_loss, rrhf_loss
from irlbook.training import Batch, TrainingConfig, score, train

LOGPS = torch.tensor([[-4.0, -6.0, -3.0]], dtype=torch.float64)
LENGTHS = torch.tensor([[2, 6, 1]])  # p = -2, -1, -3
REWARDS = torch.tensor([[1.0, 3.0, 2.0]])  # wanted: p_0 < p_2 < p_1


def test_by_hand():
    """Wrong is only the pair (0, 2), by 1 nat a token; the best response has 6 nats."""
    assert ranking_loss(LOGPS, REWARDS, LENGTHS).tolist() == [1.0]
    assert rrhf_loss(LOGPS, REWARDS, LENGTHS).tolist() == [7.0]
    assert rrhf_loss(LOGPS, REWARDS, LENGTHS, 0.5).tolist() == [4.0]
    assert ranking_accuracy(LOGPS, REWARDS, LENGTHS)[0] == pytest.approx(2 / 3)
    logps = LOGPS.clone().requires_grad_()
    rrhf_loss(logps, REWARDS, LENGTHS).sum().backward()
    # 1/|y_0| down, 1/|y_2| up, and one nat of the best response is one of the loss.
    torch.testing.assert_close(logps.grad, torch.tensor([[0.5, -1.0, -1.0]], dtype=torch.float64))


def test_sums_instead_of_means_rank_lengths():
    """The unnormalised variant finds other pairs wrong: those that are long."""
    ones = torch.ones_like(LENGTHS)
    assert ranking_loss(LOGPS, REWARDS, ones).tolist() == [5.0]  # 2 + 3, and not the pair (0, 2)
    twice = ranking_loss(2 * LOGPS, REWARDS, 2 * LENGTHS)  # every token said twice
    torch.testing.assert_close(twice, ranking_loss(LOGPS, REWARDS, LENGTHS))


@pytest.mark.parametrize("seed", range(3))
def test_against_loops(seed):
    rng = np.random.default_rng(seed)
    logps, lengths = -rng.exponential(9, (4, 5)), rng.integers(1, 9, (4, 5))
    rewards = rng.integers(0, 3, (4, 5)).astype(float)
    wanted = []
    for row in range(4):
        p = logps[row] / lengths[row]
        total = -logps[row, int(np.argmax(rewards[row]))]
        for i in range(5):
            for j in range(5):
                if rewards[row, i] < rewards[row, j]:
                    total += max(0.0, p[i] - p[j])
        wanted.append(total)
    given = (torch.tensor(x) for x in (logps, rewards, lengths))
    np.testing.assert_allclose(rrhf_loss(*given).numpy(), wanted)


def test_only_the_order_of_rewards_counts_and_ties_ask_for_nothing():
    stretched = REWARDS**3 - 100
    torch.testing.assert_close(
        rrhf_loss(LOGPS, stretched, LENGTHS), rrhf_loss(LOGPS, REWARDS, LENGTHS)
    )
    tied = torch.zeros_like(REWARDS)
    assert ranking_loss(LOGPS, tied, LENGTHS).tolist() == [0.0]
    assert rrhf_loss(LOGPS, tied, LENGTHS).tolist() == [4.0]  # SFT on the first
    assert ranking_accuracy(LOGPS, tied, LENGTHS).isnan().all()


def test_trained_in_the_loop_it_ranks():
    """The responses of a small language model come to stand in the reward's order, per token."""
    lm = EnumerableLM.create(("a", "b", "end"), 2, lambda x: np.full((len(x), 3), 1 / 3))
    table, ids = TokenTable(lm), lm.response_ids()
    rewards = torch.tensor(np.random.default_rng(0).permutation(len(ids)).astype(float))[None]
    groups = [((0,), ids)]
    settings = TrainingConfig(
        steps=150, learning_rate=0.05, weight_decay=0.0, warmup=0.0, progress=False
    )
    goal = objective(len(ids), sft_weight=0.02)
    run = train(ResponseScorer(table), groups, goal, settings, extra={"rewards": rewards})
    assert run.history[0]["ranking"] >= 0 and run.history[-1]["accuracy"] > 0.9
    assert run.history[-1]["accuracy"] > run.history[0]["accuracy"] + 0.2
    found = score(ResponseScorer(table), groups, len(ids))
    assert int(found.argmax()) == int(rewards.argmax())


def test_the_objective_is_the_loss():
    tree = collate([((1,), [[1, 2], [3] * 6, [4]])])
    batch = Batch(tree, torch.tensor([0]), None, {"rewards": REWARDS})
    values = objective(3, 0.5).values(LOGPS[0], batch)  # a number a response
    assert values["loss"].tolist() == [4.0] and values["ranking"].tolist() == [1.0]


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: rrhf_loss(LOGPS[0], REWARDS[0], LENGTHS[0]), ShapeError, "all three"),
        (lambda: rrhf_loss(LOGPS, REWARDS[:, :2], LENGTHS), ShapeError, "all three"),
        (lambda: rrhf_loss(LOGPS[:, :1], REWARDS[:, :1], LENGTHS[:, :1]), ShapeError, "2 or more"),
        (lambda: rrhf_loss(LOGPS, REWARDS, 0 * LENGTHS), ResponseError, "no token"),
        (lambda: rrhf_loss(LOGPS, REWARDS * torch.nan, LENGTHS), RewardError, "not finite"),
        (lambda: rrhf_loss(LOGPS, REWARDS, LENGTHS, -1), InvalidHyperparameterError, "0 or more"),
        (lambda: objective(1), InvalidHyperparameterError, "2 or more"),
        (lambda: objective(2, -1.0), InvalidHyperparameterError, "0 or more"),
    ],
)
def test_bad_input_is_named(call, error, match):
    with pytest.raises(error, match=match):
        call()
