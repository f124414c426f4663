"""RAFT: the ideal update by enumeration, the loop on a model that says four words."""

import math
from itertools import product

import numpy as np
import pytest
import torch
from taste_world import THINGS, taste, taught

from irlbook.errors import (
    CheckpointError,
    InvalidHyperparameterError,
    ResumeMismatchError,
    RewardError,
    SamplingError,
    ShapeError,
)
from irlbook.lm.enumerable import EnumerableLM, best_of_n, expectation
from irlbook.lm.sampling import Samples
from irlbook.posttraining import raft as module
from irlbook.posttraining import rollouts
from irlbook.posttraining.raft import RaftConfig, keep_best, raft, raft_update
from irlbook.training import TrainingConfig

# The ideal update ---------------------------------------------------------------------------------


def language(seed: int, levels: int):
    rng = np.random.default_rng(seed)
    lm = EnumerableLM.create(("a", "b", "end"), 2, lambda x: rng.dirichlet(np.ones(3), len(x)))
    return lm.sequence_log_probabilities(), rng.integers(0, levels, len(lm.responses)).astype(float)


@pytest.mark.parametrize(("seed", "k", "levels"), [(0, 2, 3), (1, 3, 4), (2, 4, 2), (3, 3, 50)])
@pytest.mark.parametrize("drop", [False, True])
def test_the_ideal_round_over_all_groups(seed, k, levels, drop):
    """Fit the first of the best of every group that can be drawn, each by its probability."""
    log_p, scores = language(seed, levels)
    p, fitted = np.exp(log_p), np.zeros(len(log_p))
    for group in product(range(len(p)), repeat=k):
        given = scores[list(group)]
        if not (drop and given.min() == given.max()):
            fitted[group[int(given.argmax())]] += np.prod(p[list(group)])
    wanted = fitted / fitted.sum()
    found = np.exp(raft_update(log_p, scores, k, drop_constant=drop))
    np.testing.assert_allclose(found, wanted, atol=1e-12)


@pytest.mark.parametrize("levels", [3, 50])
def test_rounds_of_best_of_k_are_best_of_k_to_the_r(levels):
    log_p, scores = language(4, levels)
    now = log_p
    for round_number in range(1, 5):
        now = raft_update(now, scores, 3)
        np.testing.assert_allclose(
            np.exp(now), np.exp(best_of_n(log_p, scores, 3**round_number)), atol=1e-12
        )
    top = scores == scores.max()
    assert np.exp(now)[top].sum() > 0.999  # towards the argmax, shared as the start shares it
    np.testing.assert_allclose(
        np.exp(now)[top], np.exp(log_p)[top] / np.exp(log_p)[top].sum(), rtol=2e-3
    )


def test_dropping_constant_groups_is_sharper_than_best_of_k():
    log_p, scores = language(2, 3)
    plain, sharp = (raft_update(log_p, scores, 4, drop_constant=drop) for drop in (False, True))
    assert expectation(sharp, scores) > expectation(plain, scores)
    assert np.exp(sharp)[scores == scores.min()].sum() == pytest.approx(0, abs=1e-12)
    assert np.exp(plain)[scores == scores.min()].sum() > 0
    coin = raft_update(np.log([0.5, 0.5]), np.array([0.0, 1.0]), 2, drop_constant=True)
    np.testing.assert_allclose(np.exp(coin), [0, 1], atol=1e-12)


def test_an_ideal_round_needs_two_samples_and_two_scores():
    log_p = np.log([0.5, 0.5])
    with pytest.raises(InvalidHyperparameterError, match="no choice"):
        raft_update(log_p, np.array([0.0, 1.0]), 1)
    with pytest.raises(RewardError, match="score the same"):
        raft_update(log_p, np.zeros(2), 2, drop_constant=True)
    np.testing.assert_allclose(raft_update(log_p, np.zeros(2), 2), log_p)


# What is kept -------------------------------------------------------------------------------------


def samples(ended) -> Samples:
    groups = [([9], [[10 * i + j] for j in range(3)]) for i in range(len(ended) // 3)]
    return Samples(groups, [torch.zeros(1)] * len(ended), list(ended))


def test_the_best_that_ended_is_kept_and_the_rest_is_counted():
    drawn = samples([True] * 3 + [True] * 3 + [True, False, True] + [False] * 3)
    rewards = torch.tensor([[0.0, 2.0, 1.0], [1.0, 1.0, 1.0], [0.0, 5.0, 1.0], [1.0, 2.0, 3.0]])
    kept, constant, unfinished = keep_best(drawn, rewards)
    assert kept == [([9], [[1]]), ([9], [[22]])]
    assert (constant, unfinished) == (1, 1)


def test_rewards_that_do_not_fit_are_refused():
    drawn = samples([True] * 6)
    with pytest.raises(ShapeError, match="rewards"):
        keep_best(drawn, torch.zeros(6))
    with pytest.raises(RewardError):
        keep_best(drawn, torch.full((2, 3), torch.nan))


# The loop -----------------------------------------------------------------------------------------

PROMPTS = [f"How was the {thing}?" for thing in THINGS]


@pytest.fixture(scope="module")
def start():
    return taught(PROMPTS)


def config(**changes) -> RaftConfig:
    steps = TrainingConfig(steps=8, batch_size=16, learning_rate=3e-3, progress=False)
    given = {"rounds": 3, "samples": 12, "max_new_tokens": 8, "training": steps}
    return RaftConfig(**given | changes)


def numbers(reports) -> list[tuple]:
    losses = [tuple(row["loss"] for row in r.history if "loss" in row) for r in reports]
    return [
        (r.round, r.reward, r.gold, r.kl, r.ended, r.kept, r.constant, loss)
        for r, loss in zip(reports, losses, strict=True)
    ]


def test_the_reward_rises_and_the_start_stays(start):
    model, tokenizer = start
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    policy, reports = raft(model, tokenizer, PROMPTS, taste, config(), gold=taste)
    assert all(value.equal(weights[name]) for name, value in model.state_dict().items())
    assert [r.round for r in reports] == [0, 1, 2, 3]
    assert [r.reward for r in reports] == [r.gold for r in reports]
    assert reports[-1].reward > reports[0].reward + 0.4
    assert reports[0].kl == pytest.approx(0, abs=1e-4) and reports[-1].kl > 0.2
    assert all(r.kept + r.constant + r.unfinished == len(PROMPTS) for r in reports[:-1])
    assert reports[-1].kept == 0 and not reports[-1].history and len(reports[0].history) == 8
    assert not policy.training


@pytest.mark.parametrize("killed_in_step", [False, True])
def test_a_killed_run_goes_on_to_the_same_numbers(start, tmp_path, monkeypatch, killed_in_step):
    settings = config(training=TrainingConfig(**{**STEPS, "checkpoint_every": 3}))
    whole = raft(*start, PROMPTS, taste, settings, seed=3, gold=taste)
    calls = []
    real = module.train

    def dies(scorer, groups, objective, training, **options):
        calls.append(1)
        if len(calls) == 2:
            if killed_in_step:  # after a checkpoint of the round's own
                options["evaluate"] = killer()
                training = module.replace(training, evaluate_every=1)
            else:
                raise KeyboardInterrupt
        return real(scorer, groups, objective, training, **options)

    monkeypatch.setattr(module, "train", dies)
    with pytest.raises(KeyboardInterrupt):
        raft(*start, PROMPTS, taste, settings, seed=3, gold=taste, out=tmp_path)
    monkeypatch.setattr(module, "train", real)
    policy, reports = raft(*start, PROMPTS, taste, settings, seed=3, gold=taste, out=tmp_path)
    assert numbers(reports) == numbers(whole[1])
    assert all(p.equal(q) for p, q in zip(policy.parameters(), whole[0].parameters(), strict=True))
    (tmp_path / "round-0001" / "checkpoints").mkdir(parents=True)  # a kill before its removal
    again = raft(*start, PROMPTS, None, settings, seed=3, gold=taste, out=tmp_path)
    assert numbers(again[1]) == numbers(reports)  # done: nothing is asked any more
    assert [path.name for path in tmp_path.iterdir()] == ["policy.safetensors"]


STEPS = {"steps": 8, "batch_size": 16, "learning_rate": 3e-3, "progress": False}


def killer():
    asked = []

    def evaluate():
        asked.append(1)
        if len(asked) == 6:
            raise KeyboardInterrupt
        return {}

    return evaluate


def test_another_run_in_the_folder_is_not_continued(start, tmp_path):
    small = config(rounds=1, prompts_per_round=4)
    first = raft(*start, PROMPTS, taste, small, out=tmp_path)[1]
    with pytest.raises(ResumeMismatchError, match="samples was 12 and is 4"):
        raft(*start, PROMPTS, taste, config(rounds=1, prompts_per_round=4, samples=4), out=tmp_path)
    with pytest.raises(ResumeMismatchError, match="seed was 0 and is 1"):
        raft(*start, PROMPTS, taste, small, seed=1, out=tmp_path)
    with pytest.raises(ResumeMismatchError, match="the prompts are others"):
        raft(*start, PROMPTS[1:], taste, small, out=tmp_path)
    again = raft(*start, PROMPTS, taste, small, out=tmp_path, resume=False)[1]
    assert numbers(again) == numbers(first)
    (tmp_path / "policy.safetensors").write_bytes(b"half a file")
    with pytest.raises(CheckpointError, match="resume=False"):
        raft(*start, PROMPTS, taste, small, out=tmp_path)


def test_a_constant_reward_is_named_at_once(start):
    with pytest.raises(RewardError, match="Is it a constant"):
        raft(*start, PROMPTS, lambda p, y: [1.0] * len(y), config())


def test_it_ends_where_no_prompt_is_left(start):
    calls = []

    def soon_constant(prompts, responses):
        calls.append(1)
        return taste(prompts, responses) if len(calls) == 1 else [0.0] * len(responses)

    _, reports = raft(*start, PROMPTS, soon_constant, config())
    assert [(r.round, r.kept > 0, r.constant) for r in reports[1:]] == [(1, False, len(PROMPTS))]


def test_a_policy_that_does_not_end_is_named(start, monkeypatch):
    monkeypatch.setattr(rollouts, "stop_ids", lambda *_: [10**6])  # a token that it never writes
    with pytest.raises(RewardError, match="ended within 3 tokens"):
        raft(*start, PROMPTS, lambda p, y: list(range(len(y))), config(max_new_tokens=3))


def half_nan(prompts, responses):
    return [float("nan") if "cafe" in prompt else 1.0 for prompt in prompts]


def raising(prompts, responses):
    raise KeyError("no such place")


@pytest.mark.parametrize(
    ("reward", "words"),
    [
        (raising, "raised KeyError.*How was the bus"),
        (half_nan, "nan for the prompt 'How was the cafe"),
        (lambda prompts, responses: [1.0], r"shape \(1,\) for 96 responses"),
    ],
)
def test_a_broken_reward_is_named(start, reward, words):
    with pytest.raises(RewardError, match=words):
        raft(*start, PROMPTS, reward, config())


def test_impossible_settings_are_refused(start):
    for changes in ({"rounds": 0}, {"samples": 1}, {"prompts_per_round": 0}):
        with pytest.raises(InvalidHyperparameterError, match="at least 1"):
            config(**changes)
    with pytest.raises(InvalidHyperparameterError, match="temperature"):
        config(temperature=0.0)
    with pytest.raises(SamplingError, match="0 prompts"):
        raft(*start, [], taste, config())


def test_a_fault_of_gold_is_not_called_one_of_the_reward(start):
    with pytest.raises(RewardError, match="gold, which is only measured: .* nan"):
        raft(*start, PROMPTS, taste, config(rounds=1), gold=lambda x, y: [math.nan] * len(y))
