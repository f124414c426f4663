"""What the checks of the language labs measure themselves: data to train on, gold, KL.

The answers return weights. Nothing that an answer reports about its own run is believed.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from irlbook.exercises.expect import as_array, expect, expect_type
from irlbook.lm import tokenization
from irlbook.lm.logprobs import sequence_logps, token_logps
from irlbook.lm.models import load_reward_model
from irlbook.lm.sampling import sample
from irlbook.lm.trees import collate
from irlbook.posttraining import book_models, reward_model
from irlbook.tasks import reviews
from irlbook.training.config import TrainingConfig
from irlbook.training.loop import train

__all__ = [
    "Apart",
    "Measured",
    "apart",
    "book",
    "comparisons",
    "descend",
    "draw_start",
    "expect_weights",
    "learned_reward",
    "learned_reward_of_start",
    "loaded",
    "measure",
    "prompts",
    "response_ids",
    "shown",
    "texts",
]

MOST = 80  # tokens of a response: longer than any that the world's writers produce


NEAR = 0.05  # of the way from the start; right answers: below 0.001, other recipes: 0.1 and more
SHRUNK = 3e-6  # right answers: below 1e-7; the weight decay that torch takes by itself: 3e-5


class Measured(NamedTuple):
    """What the grader found in samples of its own."""

    gold: float  # mean true reward
    ended: float  # share of the responses that end by themselves
    kl: float  # from the starting point, nats per response


class Apart(NamedTuple):
    """How weights differ from those that the recipe leads to."""

    off: float  # length of the difference, as a share of the way that the recipe goes
    shrunk: float  # share by which they are smaller in direction of the recipe's weights


@lru_cache(maxsize=5)
def book(start: int) -> tuple[Any, Any]:
    """The book's model of this number, which stays as it is, and the tokenizer."""
    model, tokenizer = book_models.load(start)
    return model.eval().requires_grad_(False), tokenizer


def draw_start(rng: np.random.Generator) -> int:
    """One of the five models that ship."""
    return int(rng.integers(len(book_models.SEEDS)))


def response_ids(text: str) -> list[int]:
    """Ids of a response, its end token included; the tokenizer is the same for all models."""
    return list(tokenization.encode_response(book(0)[1], text))


def _prompt_ids(text: Any) -> list[int]:
    return list(tokenization.encode_prompt(book(0)[1], text))


def prompts() -> list[list[int]]:
    """Ids of all prompts of the world."""
    return [_prompt_ids(text) for text in reviews.PROMPTS]


def shown(n: int, rng: np.random.Generator) -> list[tuple[list[int], list[int]]]:
    """n demonstrations by the expert, as ids."""
    made = reviews.demonstrations(n, rng, reviews.EXPERT)
    return [(_prompt_ids(d.prompt), response_ids(d.response)) for d in made]


def comparisons(
    n: int, rng: np.random.Generator, rationality: float = 1.0
) -> list[tuple[list[int], list[int], list[int]]]:
    """n times (prompt, preferred response, other response), as ids; pairs that tie are left out."""
    made: Any = reviews.preferences(2 * n, rng, rationality=rationality)
    found = [
        (_prompt_ids(p.prompt), response_ids(p.chosen), response_ids(p.rejected))
        for p in made
        if reviews.gold(p.prompt, p.chosen) != reviews.gold(p.prompt, p.rejected)
    ]
    return found[:n]


def expect_weights(got: Any, model: Any, what: str = "the result") -> dict[str, Tensor]:
    """Fail unless it is a state dict that fits the model; returns it in single precision."""
    want = model.state_dict()
    hint = "return `model.state_dict()` of the model that you trained"
    expect_type(got, Mapping, what=what, hint=hint)
    expect(set(got) == set(want), property=f"{what} holds the weights of the model", hint=hint)
    arrays = {
        name: as_array(got[name], tuple(value.shape), what=f"the weight {name}", hint=hint)
        for name, value in want.items()
    }
    return {name: torch.tensor(array, dtype=torch.float32) for name, array in arrays.items()}


def loaded(weights: Any, start: int) -> Any:
    """The book's model with the weights that an answer returned."""
    model = copy.deepcopy(book(start)[0])
    model.load_state_dict(expect_weights(weights, model))
    return model


def descend(
    parameters: Iterable[Tensor],
    losses: Iterable[Callable[[], Tensor]],
    rate: float,
    decay: float = 0.0,
) -> None:
    """One step of AdamW for each loss, in place."""
    optimizer = torch.optim.AdamW(list(parameters), lr=rate, weight_decay=decay)
    for loss in losses:
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()


def apart(
    got: Mapping[str, Tensor], want: Mapping[str, Tensor], base: Mapping[str, Tensor]
) -> Apart:
    """Compare an answer's weights with those of the same steps, taken here from `base`.

    Rounding leaves `off` below 0.001 in whatever order the rows of a batch come, and `shrunk`
    below 1e-7; a learning rate that is a tenth too small makes the first 0.1 and more.
    """

    def dot(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
        return sum(float((one[name].double() * other[name].double()).sum()) for name in want)

    difference = {name: got[name] - want[name] for name in want}
    way = {name: want[name] - base[name] for name in want}
    return Apart(
        off=(dot(difference, difference) / dot(way, way)) ** 0.5,
        shrunk=-dot(difference, want) / dot(want, want),
    )


def expect_recipe(
    trained: Callable[[list[Any], int], Mapping[str, Tensor]],
    taught: Callable[[list[list[Any]]], Mapping[str, Tensor]],
    base: Mapping[str, Tensor],
    few: list[Any],
    batch: int,
    *,
    noun: str,
    rests_on: str,
) -> None:
    """Fail unless an answer takes the steps of the recipe: its batches, each example once.

    Args:
        trained: (examples, epochs) to the weights of the answer.
        taught: batches to the weights after one step of the recipe on each.
        base: the weights before the first step.
        few: at least `batch` examples.
        noun: what the examples are, plural. rests_on: a question about the exercises that it uses.
    """
    # With one batch of examples their order does not matter: the steps are computed here.
    one_batch = few[:batch]
    found = apart(trained(one_batch, 3), taught([one_batch] * 3), base)
    expect(
        found.off < NEAR,
        property=f"with {batch} {noun} each epoch is one step on the loss of all of them",
        hint="does each epoch take every one of them once? Is one optimiser made before the first "
        f"step, and does it start each step with a gradient of 0? {rests_on}",
    )
    expect(
        found.shrunk < SHRUNK,
        property="no weight decays",
        hint="`torch.optim.AdamW` makes all weights smaller in each step unless it is told not to",
    )
    # Copies of two examples: whatever the order, one of the two is left for the second batch.
    half = batch // 2
    asked = [few[0]] * (half + 1) + [few[1]] * half
    ways = [[asked[1:], asked[:1]], [asked[:-1], asked[-1:]]]
    got = trained(asked, 1)
    expect(
        min(apart(got, taught(way), base).off for way in ways) < NEAR,
        property=f"{batch + 1} {noun} are a batch of {batch} and a batch of one, and an epoch uses "
        "each of them once",
        hint="a batch is full wherever there are examples enough, and the last one of an epoch "
        "holds what is left",
    )


def texts(responses: list[list[int]]) -> list[str]:
    """What the ids of responses say."""
    return [tokenization.decode(book(0)[1], ids) for ids in responses]


@torch.no_grad()
def measure(model: Any, start: int, rng: np.random.Generator, n: int = 256) -> Measured:
    """Sample n responses at temperature 1 and read them with the world's true reward."""
    reference, tokenizer = book(start)
    asked = reviews.sample_prompts(n, rng)
    drawn = sample(
        model,
        [_prompt_ids(text) for text in asked],
        max_new_tokens=MOST,
        stop_ids=tokenization.stop_ids(tokenizer),
        seeds=int(rng.integers(2**31)),
    )
    tree = collate(drawn.groups)
    before = sequence_logps(token_logps(reference, tree), tree.lengths)
    now = torch.stack([steps.sum() for steps in drawn.logps])
    gold = [reviews.gold(x, y) for x, y in zip(asked, texts(drawn.responses), strict=True)]
    return Measured(
        gold=float(np.mean(gold)),
        ended=float(np.mean(drawn.ended)),
        kl=float((now - before).mean()),
    )


@lru_cache(maxsize=5)
def learned_reward(start: int) -> dict[str, Any]:
    """A reward model of the library, trained on 1,000 noisy comparisons: its body and its head."""
    model: Any = load_reward_model(book_models.folder(start), new_head=True)[0]
    pairs = comparisons(1_000, np.random.default_rng([start, 11]))
    groups = [(x, [better, worse]) for x, better, worse in pairs]
    config = TrainingConfig(epochs=2, learning_rate=1e-3, weight_decay=0.0, progress=False)
    train(reward_model.RewardScorer(model), groups, reward_model.objective(), config)
    return {"body": model.model.state_dict(), "head": model.score.weight[0].detach()}


@lru_cache(maxsize=5)
@torch.no_grad()
def learned_reward_of_start(start: int, n: int = 64) -> tuple[float, float, Tensor]:
    """What samples of the start to n prompts are like: mean and spread of `learned_reward`, lift.

    Returns:
        the mean; the standard deviation over prompts; and (H,) what to add to a head so that the
        reward of a sample rises by 1 on average.
    """
    model, tokenizer = book(start)
    asked = [_prompt_ids(text) for text in reviews.sample_prompts(n, np.random.default_rng(13))]
    stops = tokenization.stop_ids(tokenizer)
    drawn = sample(model, asked, 4, max_new_tokens=60, stop_ids=stops, seeds=13)
    rows = [torch.tensor([*x, *y]) for x, ys in drawn.groups for y in ys]
    body, head = copy.deepcopy(model.model), learned_reward(start)["head"]
    body.load_state_dict(learned_reward(start)["body"])
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    last = torch.tensor([len(row) - 1 for row in rows])
    hidden = body(input_ids=ids).last_hidden_state  # causal: a row does not see its padding
    states = hidden[torch.arange(len(rows)), last]
    said, centre = states @ head, states.mean(0)
    return float(said.mean()), float(said.view(n, 4).mean(1).std()), centre / (centre @ centre)
