"""Samplers of another make, and rewards that are asked in several processes."""

import json
import sys
from types import ModuleType, SimpleNamespace

import pytest
import reward_toys
import torch

from irlbook.errors import (
    InvalidHyperparameterError,
    MissingDependencyError,
    RewardError,
    SamplingError,
    UnsupportedModelError,
)
from irlbook.lm import models
from irlbook.lm.sampling import Samples, greedy, sample
from irlbook.lm.tokenization import encode_prompt, train_tokenizer
from irlbook.posttraining import rollouts
from irlbook.posttraining.configs import RewardSource, Source
from irlbook.posttraining.online import OnlineConfig, train_online
from irlbook.posttraining.online_pipeline import train_policy
from irlbook.posttraining.reward_workers import in_processes
from irlbook.posttraining.rollouts import OLDEST_VLLM
from irlbook.training import StepConfig

PROMPTS = ["say bus", "say film", "say zoo", "say gym"]


@pytest.fixture(scope="module")
def start():
    tokenizer = train_tokenizer(PROMPTS, 300)
    return models.tiny_lm(tokenizer, hidden=16, layers=1, heads=2, context=64), tokenizer


def draw(sampler, model, n=2, temperature=0.8, **changes):
    options = {"max_new_tokens": 5, "stop_ids": [2], "seeds": [7, 8]}
    return sampler(model, [[1, 5], [1, 6, 7]], n, temperature=temperature, **options | changes)


def letters(prompts, responses):
    return [float(sum(c.isalpha() for c in text)) for text in responses]


def config(**changes) -> OnlineConfig:
    training = StepConfig(learning_rate=1e-2, progress=False)
    given = {"method": "rloo", "iterations": 3, "prompts": 3, "samples": 3, "max_new_tokens": 6}
    return OnlineConfig(training=training, **given | changes)


# Samplers -----------------------------------------------------------------------------------------


def test_the_built_in_sampler_is_the_books_own(start):
    model = start[0]
    ours = draw(rollouts.built_in, model)
    plain = sample(
        model,
        [[1, 5], [1, 6, 7]],
        2,
        max_new_tokens=5,
        stop_ids=[2],
        seeds=[7, 8],
        temperature=0.8,
    )
    assert ours.groups == plain.groups and torch.equal(ours.token_logps, plain.token_logps)
    likeliest = draw(rollouts.built_in, model, n=1, temperature=0)
    wanted = greedy(model, [[1, 5], [1, 6, 7]], max_new_tokens=5, stop_ids=[2])
    assert likeliest.groups == wanted.groups
    with pytest.raises(InvalidHyperparameterError, match="all the same"):
        draw(rollouts.built_in, model, n=2, temperature=0)


def broken(change):
    """A sampler that gives its samples after `change`."""

    def sampler(*args, **options) -> Samples:
        drawn = rollouts.built_in(*args, **options)
        parts = {"groups": drawn.groups, "logps": drawn.logps, "ended": drawn.ended}
        return Samples(**change(parts), temperature=drawn.temperature)

    return sampler


@pytest.mark.parametrize(
    "change, named",
    [
        (lambda x: x | {"groups": x["groups"][:-1]}, "each"),
        (lambda x: x | {"logps": [logps[:-1] for logps in x["logps"]]}, "as many of both"),
        (lambda x: x | {"ended": [not over for over in x["ended"]]}, "holds its end token"),
    ],
)
def test_a_sampler_that_breaks_its_word_is_named(start, change, named):
    with pytest.raises(SamplingError, match=named):
        train_online(*start, PROMPTS, letters, config(), sampler=broken(change))


@pytest.fixture
def fake_vllm(monkeypatch):
    """A stand-in with vLLM's interface: it has weights of its own, and draws as the book does.

    For what the real one cannot do here: benchmarks/check_vllm.py asks it whether it takes new
    weights over, in an environment of its own.
    """
    made = []

    class LLM:
        def __init__(self, model, **options):
            assert options["logprobs_mode"] == "processed_logprobs"
            self.model, self.options, self.cached = models.load_lm(model)[0], options, 0
            made.append(self)

        def collective_rpc(self, method, kwargs):
            assert method == "reload_weights"
            self.model.load_state_dict(dict(kwargs["weights_iterator"]))

        def reset_prefix_cache(self):
            self.cached = 0

        def generate(self, prompts, params, use_tqdm):
            assert self.cached == 0, "keys and values of other weights"
            self.cached, found = 1, []
            for prompt, p in zip(prompts, params, strict=True):
                drawn = rollouts.built_in(
                    self.model,
                    [prompt["prompt_token_ids"]],
                    p.n,
                    max_new_tokens=p.max_tokens,
                    stop_ids=p.stop_token_ids,
                    temperature=p.temperature,
                    seeds=[p.seed],
                )
                outputs = [
                    SimpleNamespace(
                        token_ids=tuple(answer),
                        logprobs=[
                            {token: SimpleNamespace(logprob=float(logp))}
                            for token, logp in zip(answer, logps, strict=True)
                        ],
                        finish_reason="stop" if over else "length",
                    )
                    for answer, logps, over in zip(
                        drawn.responses, drawn.logps, drawn.ended, strict=True
                    )
                ]
                found.append(SimpleNamespace(outputs=outputs))
            return found

    module = ModuleType("vllm")
    module.LLM, module.SamplingParams, module.__version__ = LLM, SimpleNamespace, OLDEST_VLLM
    monkeypatch.setitem(sys.modules, "vllm", module)
    return made


@pytest.mark.parametrize("method", ["rloo", "remax"])
def test_vllm_draws_from_the_weights_of_the_moment(start, fake_vllm, tmp_path, method):
    """Equal runs, to rounding: without the sync, or with a stale cache, they would part."""
    folder = models.save(*start, tmp_path / "model")
    sampler = rollouts.VLLMSampler(folder, dtype="float32")
    assert fake_vllm[0].options["dtype"] == "float32"
    theirs = train_online(*start, PROMPTS, letters, config(method=method), sampler=sampler)
    ours = train_online(*start, PROMPTS, letters, config(method=method))
    for name in ("reward", "kl", "entropy", "ended", "grad_norm"):
        assert theirs.column(name) == pytest.approx(ours.column(name), abs=1e-4)


def test_an_adapter_is_refused_by_vllm(start, fake_vllm, tmp_path):
    sampler = rollouts.VLLMSampler(models.save(*start, tmp_path / "model"))
    with pytest.raises(UnsupportedModelError, match="Merge"):
        sampler.sync(SimpleNamespace(peft_type="LORA"))


def test_the_engine_is_told_the_precision_and_the_longest_row(start, fake_vllm, tmp_path):
    folder = models.save(*start, tmp_path / "model")
    data, reward = tmp_path / "prompts.jsonl", tmp_path / "reward.py"
    data.write_text("".join(json.dumps({"prompt": p}) + "\n" for p in PROMPTS))
    reward.write_text("def ones(prompts, responses):\n    return [1.0] * len(prompts)\n")
    train_policy(
        Source(str(folder), data),
        RewardSource((f"{reward}:ones",)),
        tmp_path / "run",
        config(iterations=1),
        vllm=True,
    )
    options = fake_vllm[0].options
    longest = max(len(encode_prompt(start[1], p)) for p in PROMPTS)
    assert options["dtype"] == "float32" and options["max_model_len"] == longest + 6
    assert "distributed_executor_backend" not in options  # one process


def test_a_vllm_that_takes_no_new_weights_is_refused(fake_vllm, monkeypatch):
    monkeypatch.setattr(sys.modules["vllm"], "__version__", "0.28.0+cpu")
    with pytest.raises(MissingDependencyError, match="0.28.0"):
        rollouts.VLLMSampler("somewhere")


def test_without_vllm_the_mend_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(MissingDependencyError, match=r"irlbook\[vllm\]"):
        rollouts.VLLMSampler("somewhere")


# Reward workers -----------------------------------------------------------------------------------


def test_workers_give_the_numbers_of_one_process_in_order(start):
    prompts = [f"{k:03}"[: 1 + k % 3] for k in range(7)]
    responses = ["y" * k for k in range(7)]
    with in_processes(reward_toys.length, 2) as reward:
        assert reward(prompts, responses) == reward_toys.length(prompts, responses)
        assert reward(prompts[:1], responses[:1]) == reward_toys.length(prompts[:1], [""])
        together = train_online(*start, PROMPTS, reward, config())
    alone = train_online(*start, PROMPTS, reward_toys.length, config())
    assert together.column("reward").tolist() == alone.column("reward").tolist()
    with pytest.raises(RuntimeError, match="shutdown"):
        reward(["x"], ["y"])


def test_what_a_worker_raises_names_the_prompt():
    with in_processes(reward_toys.breaks_on_an_empty_response, 2) as reward:
        with pytest.raises(RewardError, match="ZeroDivisionError.*prompt 'c'") as caught:
            rollouts.ask(reward, ["a", "b", "c", "d"], ["y", "y", "", "y"])
        assert str(caught.value).count("the reward raised") == 1
        assert rollouts.ask(reward, ["a", "b"], ["y", "yy"]).tolist() == [1.0, 0.5]  # it lives on


def test_a_worker_that_dies_is_named():
    with in_processes(reward_toys.ends_its_process, 2) as reward:
        assert rollouts.ask(reward, ["a", "b"], ["y", "y"]).tolist() == [0, 0]
        with pytest.raises(RewardError, match="worker died.*'a'"):
            rollouts.ask(reward, ["a", "b"], ["y", "die"])


def test_a_wrong_length_from_a_worker_is_named():
    with in_processes(reward_toys.one_too_many, 1) as reward:
        with pytest.raises(RewardError, match="one number a response"):
            rollouts.ask(reward, ["a", "b"], ["y", "y"])


def test_a_reward_that_cannot_travel_is_refused():
    with pytest.raises(RewardError, match="top of a module"):
        with in_processes(lambda p, y: [0.0] * len(y), 2):
            pass
    with pytest.raises(InvalidHyperparameterError, match="workers"):
        with in_processes(reward_toys.length, 0):
            pass
