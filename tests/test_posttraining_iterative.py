"""Iterative DPO: rounds of samples, pairs and steps."""

import copy

import numpy as np
import pytest
import torch
from taste_world import SHARES, THINGS, taste, taught

from irlbook.errors import InvalidHyperparameterError, RewardError
from irlbook.lm.logprobs import ResponseScorer
from irlbook.lm.sampling import sample
from irlbook.lm.tokenization import (
    decode,
    encode_prompt,
    encode_response,
    stop_ids,
)
from irlbook.posttraining import dpo
from irlbook.posttraining.iterative import IterativeConfig, iterate_dpo
from irlbook.posttraining.reward_model import RewardScorer
from irlbook.training import TrainingConfig, train

PROMPTS = [f"{ask} the {thing}?" for thing in THINGS for ask in ("How was", "And")]
LOSS = dpo.PreferenceConfig(beta=0.3)


@pytest.fixture(scope="module")
def start():
    return taught(PROMPTS)


def config(**changes) -> IterativeConfig:
    steps = TrainingConfig(steps=10, batch_size=16, learning_rate=1e-3, progress=False)
    given = {"rounds": 3, "samples": 16, "max_new_tokens": 6, "training": steps, "loss": LOSS}
    return IterativeConfig(**given | changes)


def shares(model, tokenizer, n: int = 200) -> dict[str, float]:
    ids = [encode_prompt(tokenizer, prompt) for prompt in PROMPTS]
    stops = stop_ids(tokenizer, model)
    drawn = sample(model, ids, n, max_new_tokens=6, stop_ids=stops, seeds=99)
    said = [decode(tokenizer, y) for y in drawn.responses]
    return {word: said.count(word) / len(said) for word in SHARES}


def test_reward_rises_where_offline_pairs_never_went(start):
    """Coverage: the best response is in no offline pair; the policy's own samples hold it."""
    model, tokenizer = start
    before = shares(model, tokenizer)
    assert 0.001 < before["great"] < 0.05
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    policy, reports = iterate_dpo(model, tokenizer, PROMPTS, taste, config(), seed=0, gold=taste)
    assert all(value.equal(weights[name]) for name, value in model.state_dict().items())
    assert [r.number for r in reports] == [0, 1, 2, 3]
    rewards = [r.reward for r in reports]
    assert rewards == [r.gold for r in reports] and rewards[-1] > rewards[0] + 0.4
    assert reports[0].kl == pytest.approx(0, abs=1e-4) and reports[-1].kl > 0.3
    assert all(r.pairs + r.ties == len(PROMPTS) for r in reports[:-1])
    assert reports[-1].pairs == 0 and not reports[-1].history and len(reports[0].history) == 10
    assert shares(policy, tokenizer)["great"] > 0.15

    ids = [encode_prompt(tokenizer, prompt) for prompt in PROMPTS]
    said = [encode_response(tokenizer, word) for word in ("dull", "bad")]
    offline = copy.deepcopy(model)
    steps = TrainingConfig(steps=30, batch_size=16, learning_rate=1e-3, progress=False)
    train(ResponseScorer(offline), [(p, said) for p in ids], dpo.objective(LOSS), steps)
    found = shares(offline, tokenizer)
    assert found["bad"] < before["bad"] / 2 and found["great"] < 0.08


def test_a_seed_is_a_run(start):
    runs = [
        iterate_dpo(*start, PROMPTS, taste, config(rounds=1, prompts_per_round=3), seed=seed)[1]
        for seed in (5, 5, 6)
    ]
    numbers = [[(r.reward, r.kl, r.pairs) for r in run] for run in runs]
    assert numbers[0] == numbers[1] != numbers[2]
    assert all(r.pairs + r.ties == 3 for run in runs for r in run[:-1])


@pytest.mark.parametrize("reference", ["start", "previous"])
def test_a_round_starts_at_log_2_where_it_is_its_own_reference(start, reference):
    _, reports = iterate_dpo(*start, PROMPTS, taste, config(rounds=2, reference=reference))
    first = [r.history[0]["loss"] for r in reports[:2]]
    assert first[0] == pytest.approx(np.log(2), abs=1e-5)
    assert (first[1] == pytest.approx(np.log(2), abs=1e-5)) == (reference == "previous")


def test_a_reward_model_is_a_reward_too(start):
    model, tokenizer = start
    classifier = copy.deepcopy(model)
    classifier.score = torch.nn.Linear(32, 1, bias=False)
    with torch.no_grad():  # how much more likely the model finds a question mark than a stop
        ids = tokenizer.convert_tokens_to_ids(["?", "."])
        rows = model.get_output_embeddings().weight[ids]
        classifier.score.weight.copy_(rows[:1] - rows[1:])
    scorer = RewardScorer(classifier, "sum")
    _, reports = iterate_dpo(model, tokenizer, PROMPTS, scorer, config())
    assert reports[-1].reward > reports[0].reward and reports[0].pairs > 0


def test_a_reward_that_cannot_tell_takes_no_step(start):
    model, tokenizer = start
    policy, reports = iterate_dpo(
        model, tokenizer, PROMPTS, lambda p, y: [1.0] * len(y), config(rounds=1)
    )
    assert (reports[0].pairs, reports[0].ties, reports[0].history) == (0, len(PROMPTS), [])
    assert all(p.equal(q) for p, q in zip(policy.parameters(), model.parameters(), strict=True))


def raising(prompts, responses):
    if any("park" in prompt for prompt in prompts):
        raise KeyError("no such place")
    return [0.0] * len(prompts)


def half_nan(prompts, responses):
    return [float("nan") if "cafe" in prompt else 1.0 for prompt in prompts]


@pytest.mark.parametrize(
    ("reward", "words"),
    [
        (raising, "raised KeyError.*How was the park"),
        (half_nan, "nan for the prompt 'How was the cafe.*not finite for 32"),
        (lambda prompts, responses: [1.0], r"shape \(1,\) for 256 responses.*How was the bus"),
        (lambda prompts, responses: None, "gave None for 256 responses.*How was the bus.*return"),
        (
            lambda prompts, responses: ["good"] * len(prompts),
            "gave .'good'.*for 256 responses.*are no numbers",
        ),
    ],
)
def test_a_broken_reward_is_named_with_its_prompt(start, reward, words):
    with pytest.raises(RewardError, match=words):
        iterate_dpo(*start, PROMPTS, reward, config())


def test_impossible_settings_are_refused():
    for changes, least in (({"rounds": 0}, 1), ({"samples": 1}, 2), ({"prompts_per_round": 0}, 1)):
        with pytest.raises(InvalidHyperparameterError, match=f"at least {least}"):
            config(**changes)
    with pytest.raises(InvalidHyperparameterError, match="start or previous"):
        config(reference="gold")
    with pytest.raises(InvalidHyperparameterError, match="pairs"):
        config(loss=dpo.PreferenceConfig("kto"))
