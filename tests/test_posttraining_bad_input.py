"""Bad rewards, one row a fault: what somebody's function or model may give, and what is said."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from irlbook.errors import InvalidHyperparameterError, NotFiniteError, RewardError, ShapeError
from irlbook.lm.sampling import Samples
from irlbook.posttraining import rollouts
from irlbook.posttraining.best_of_n import best_of_n_curve
from irlbook.posttraining.policy_gradient import constant_groups, grpo_advantage, rloo_advantage
from irlbook.training import TrainingConfig

PROMPTS = ["p0", "p1", "p1"]
RESPONSES = ["a", "", "bb"]


class Object:
    """Something that no number can be made of."""


# A function's answers -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        [1, 0, 2],
        (1.0, 0.0, 2.0),
        np.array([1, 0, 2], dtype=np.int8),
        np.array([1, 0, 2], dtype=np.float16),
        [np.float32(1), np.float64(0), 2],
        torch.tensor([1.0, 0.0, 2.0]),
        torch.tensor([1, 0, 2]),
        [torch.tensor(1.0), torch.tensor(0.0), torch.tensor(2.0)],
        [True, False, 2],
    ],
    ids=repr,
)
def test_numbers_of_any_kind_are_taken(answer):
    got = rollouts.ask(lambda p, y: answer, PROMPTS, RESPONSES)
    assert got.dtype == torch.float64 and got.tolist() == [1.0, 0.0, 2.0]


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (None, "gave None for 3 responses"),
        (0.5, "one number a response"),
        ([], "one number a response"),
        ([1.0, 2.0], "for 3 responses"),
        ([1.0] * 4, r"\(4,\) for 3"),
        ([[1.0], [2.0], [3.0]], r"\(3, 1\)"),
        (np.ones((1, 3)), r"\(1, 3\)"),
        ([1.0, math.nan, 2.0], "nan for the prompt 'p1' and the response ''"),
        ([1.0, 2.0, math.inf], "inf for the prompt 'p1' and the response 'bb'"),
        ([-math.inf] * 3, "'p0'.*3 responses"),
        ([1.0, None, 2.0], "gave None for the prompt 'p1'"),
        ([1.0, [2.0], 3.0], "are no numbers.*inhomogeneous"),
        (["good", "bad", "bad"], "are no numbers.*to float: 'good'"),
        ({"a": 1.0}, "are no numbers.*dict"),
        ((x for x in (1.0, 2.0, 3.0)), "are no numbers.*generator"),
        ([1j, 0, 0], "are no numbers|real"),
        ([Object()] * 3, "are no numbers.*Object"),
        (torch.ones(3, requires_grad=True), "are no numbers.*detach"),
        (torch.ones(3, dtype=torch.bfloat16), "are no numbers.*BFloat16"),
    ],
    ids=lambda value: value if isinstance(value, str) else repr(value)[:30],
)
def test_what_is_not_a_finite_number_each_is_named(answer, says):
    with pytest.raises(RewardError, match=says):
        rollouts.ask(lambda p, y: answer, PROMPTS, RESPONSES)


def test_a_reward_that_raises_is_told_by_the_text_that_shows_it():
    def picky(prompts, responses):
        return [1 / len(text) for text in responses]

    with pytest.raises(RewardError, match="ZeroDivisionError.*prompt 'p1' and the response ''"):
        rollouts.ask(picky, PROMPTS, RESPONSES)

    def only_together(prompts, responses):
        if len(prompts) > 1:
            raise MemoryError("too many at once")
        return [0.0]

    with pytest.raises(RewardError, match="not for any response alone, but for all 3") as raised:
        rollouts.ask(only_together, PROMPTS, RESPONSES)
    assert isinstance(raised.value.__cause__, MemoryError)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_interruption_is_no_fault_of_the_reward(error):
    def interrupted(prompts, responses):
        raise error

    with pytest.raises(error):
        rollouts.ask(interrupted, PROMPTS, RESPONSES)


# A reward model's answers -------------------------------------------------------------------------


class Given(nn.Module):
    """Gives each response the same, whatever it is."""

    def __init__(self, value: float, shape=lambda n: (n,)) -> None:
        super().__init__()
        self.value, self.shape = nn.Parameter(torch.tensor(value)), shape

    def forward(self, tree):
        return self.value.expand(self.shape(len(tree.lengths)))


class Pad:
    """As much of a tokenizer as scoring asks for."""

    pad_token_id = eos_token_id = 0
    chat_template = bos_token_id = None

    def decode(self, ids, **options):
        return " ".join(map(str, ids))


GROUPS = [([5], [[1, 2], [3]]), ([6], [[2], [2, 2, 4]])]
DRAWN = Samples(GROUPS, [torch.zeros(n) for n in (2, 1, 1, 3)], [True] * 4)
CONFIG = TrainingConfig(progress=False)


def test_a_reward_model_scores_every_response():
    got = rollouts.rewards_of(Given(0.5), ["x", "z"], DRAWN, Pad(), CONFIG)
    assert got.tolist() == [[0.5, 0.5], [0.5, 0.5]] and not got.requires_grad


class Longest(nn.Module):
    """A reward without a parameter."""

    def forward(self, tree):
        return tree.lengths.float()


def test_a_module_without_parameters_is_a_reward_too():
    got = rollouts.rewards_of(Longest(), ["x", "z"], DRAWN, Pad(), CONFIG)
    assert got.tolist() == [[2.0, 1.0], [1.0, 3.0]]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_reward_model_that_is_not_finite_reaches_no_gradient(value):
    with pytest.raises(RewardError):
        rloo_advantage(rollouts.rewards_of(Given(value), ["x", "z"], DRAWN, Pad(), CONFIG))


# Groups in which nothing differs ------------------------------------------------------------------


@pytest.mark.parametrize("level", [0.0, 0.1, -1e30, 1e-30, 1 / 3])
@pytest.mark.parametrize("k", [2, 3, 7, 64])
def test_equal_rewards_give_exactly_no_advantage_at_any_level(level, k):
    """A mean of equal floats may miss them by a rounding; that must not be divided by itself."""
    equal = torch.full((2, k), level)
    assert constant_groups(equal).all()
    for scale in (True, False):
        assert (grpo_advantage(equal, scale) == 0).all()
    mixed = torch.cat([equal, torch.arange(k, dtype=torch.float32)[None]])
    assert constant_groups(mixed).tolist() == [True, True, False]
    advantage = grpo_advantage(mixed)
    assert (advantage[:2] == 0).all() and advantage[2].std().item() == pytest.approx(1.0)


def test_best_of_n_refuses_what_it_cannot_rank():
    rng = np.random.default_rng(0)
    good = rng.normal(size=(4, 8))
    broken = good.copy()
    broken[1, 2] = np.nan
    for pair in ((broken, good), (good, broken), (good, good[:, :7])):
        with pytest.raises((ShapeError, NotFiniteError)):
            best_of_n_curve(*pair, [1, 2], rng=rng)
    for n in (0, 9):
        with pytest.raises(InvalidHyperparameterError, match="n"):
            best_of_n_curve(good, good, [n], rng=rng)
